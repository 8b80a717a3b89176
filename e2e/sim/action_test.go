package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

// operator connects one. Packets may get lost: it tries until it has a connection, or the run is over.
func (c *cluster) operator(ctx context.Context) (*operator.Client, error) {
	for {
		dialling, cancel := context.WithTimeout(ctx, 10*time.Second)
		op, err := operator.Dial(dialling, "director:61001", operator.Options{TLS: c.sources[identity.Operator], Network: c.net.Host("operator")})
		cancel()
		if err == nil || ctx.Err() != nil {
			return op, err
		}
	}
}

// act lets an operator do something. What the director refuses is fine, if it says so in an error of its own that fits;
// what counts is that the streams go on.
func (c *cluster) act(ctx context.Context, a action, ids []chan string) error {
	c.sleep(a.at)
	if a.kind == roll {
		c.workers[a.worker].stop()
		c.workers[a.worker].restart()
		return nil
	}
	op, err := c.operator(ctx)
	if err != nil {
		return over(ctx, err)
	}
	defer op.Close() //nolint:errcheck // the run is over
	label := c.workers[a.worker].cfg.Label
	switch a.kind {
	case swapOne:
		id := <-ids[a.client]
		ids[a.client] <- id
		record, err := op.Swap(ctx, id, a.stream, label)
		if err == nil && (record.State != "Completed" || record.To != label || record.From == label) {
			return fmt.Errorf("%v: %+v", a, record)
		}
		return over(ctx, a.unexpected(err, wire.CodeNotFound, wire.CodeConflict, wire.CodeCancelled, wire.CodeInvalid))
	case drain:
		_, err := op.Drain(ctx, label, max(a.length, time.Millisecond), true, nil)
		if err := over(ctx, a.unexpected(err, wire.CodeConflict, wire.CodeNotFound, wire.CodeNoWorker)); err != nil {
			return err
		}
		return over(ctx, a.unexpected(op.Undrain(ctx, label), wire.CodeNotFound, wire.CodeInvalid))
	default:
		_, err := op.Rebalance(ctx, nil)
		return over(ctx, a.unexpected(err, wire.CodeConflict))
	}
}

// unexpected returns err unless it is one of the director's, with one of these codes.
func (a action) unexpected(err error, codes ...wire.Code) error {
	for _, code := range codes {
		if errors.Is(err, &wire.Error{Code: code}) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%v: %w", a, err)
	}
	return nil
}

// over returns err, unless the run is over: then everything may fail.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// decide confirms planned swaps, and vetoes some.
func (c *cluster) decide(ctx context.Context, seed uint64) error {
	op, err := c.operator(ctx)
	if err != nil {
		return over(ctx, err)
	}
	defer op.Close() //nolint:errcheck // the run is over
	r := rand.New(rand.NewPCG(seed, 7))
	for ctx.Err() == nil {
		status, err := op.Status(ctx)
		if err != nil {
			return over(ctx, err)
		}
		for _, s := range status.Swaps {
			if s.State != "WaitingConfirmation" {
				continue
			}
			if r.IntN(3) == 0 {
				err = op.Veto(ctx, s.ConnectionID, s.StreamID, "no")
			} else {
				err = op.Confirm(ctx, s.ConnectionID, s.StreamID)
			}
			if err := over(ctx, (action{}).unexpected(err, wire.CodeConflict, wire.CodeNotFound)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(73_700 * time.Microsecond):
		}
	}
	return nil
}
