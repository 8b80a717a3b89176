package operator

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Moves counts streams that are being moved.
type Moves struct {
	Remaining int      `json:"remaining"` // still on the worker that is drained; for a rebalancing, still to be moved
	Moved     int      `json:"moved"`
	Failed    int      `json:"failed"`               // swaps that were given up; their streams are tried again
	InTheWay  []string `json:"in_the_way,omitempty"` // what keeps the remaining ones, for people
}

// Swap moves one stream to the worker to, or to any other one where that is empty, and waits for it. stream 0 is
// the only one of its connection.
//
// A swap that began and was given up is an error of CodeCancelled; the record tells of it even then.
func (c *Client) Swap(ctx context.Context, connection string, stream uint64, to string) (migration.Record, error) {
	var record migration.Record
	result, err := c.do(ctx, "swap", struct {
		streamOf
		ToWorker string `json:"to_worker"`
	}{streamOf{wire.Text(connection), stream}, wire.Text(to)}, func(json.RawMessage) {})
	if err != nil {
		return record, err
	}
	if err := decode(result, "record of the swap", &record); err != nil {
		return record, err
	}
	return record, completed(record)
}

// completed is an error for a swap that is not.
func completed(record migration.Record) error {
	switch {
	case record.State == "":
		return missing("state of the swap")
	case record.State != migration.Completed.String() && record.Reason == "":
		return wire.Errorf(wire.CodeCancelled, "the swap ended in %s", record.State)
	case record.State != migration.Completed.String():
		return wire.Errorf(wire.CodeCancelled, "the swap ended in %s: %s", record.State, record.Reason)
	default:
		return nil
	}
}

// Drain takes a worker out of use, moves its streams to others, and waits until it is empty, for as long as
// timeout. With force it does so even if no other worker is there to take them. progress, which may be nil, gets
// how far it has come; it is called by this goroutine.
//
// The moves are the last ones known, even with an error. It is of CodeNoWorker where streams remain.
func (c *Client) Drain(
	ctx context.Context, worker string, timeout time.Duration, force bool, progress func(Moves),
) (Moves, error) {
	if timeout <= 0 {
		return Moves{}, wire.Errorf(wire.CodeInvalid, "the timeout is %v, it has to be above 0", timeout)
	}
	ctx, cancel := within(ctx, timeout+answerTimeout)
	defer cancel()
	return c.move(ctx, "drain", struct {
		Worker    string `json:"worker"`
		TimeoutMS uint64 `json:"timeout_ms"`
		Force     bool   `json:"force"`
	}{wire.Text(worker), uint64(max(1, timeout.Milliseconds())), force}, progress)
}

// Rebalance moves streams from the fullest to the emptiest workers until they are even. It is like Drain in
// everything else, but takes as long as it takes.
func (c *Client) Rebalance(ctx context.Context, progress func(Moves)) (Moves, error) {
	return c.move(ctx, "rebalance", struct{}{}, progress)
}

func (c *Client) move(ctx context.Context, kind string, body any, progress func(Moves)) (Moves, error) {
	var last Moves
	result, err := c.do(ctx, kind, body, func(text json.RawMessage) {
		next, err := movesOf(text)
		if err != nil {
			return // the result will tell
		}
		last = next
		if progress != nil {
			progress(last)
		}
	})
	if err != nil {
		return last, err
	}
	over, err := movesOf(result)
	if err != nil {
		return last, err
	}
	if over.Remaining > 0 {
		return over, wire.Errorf(wire.CodeNoWorker, "not all could be moved, %d remain", over.Remaining)
	}
	return over, nil
}

// movesOf reads a count of what was moved.
func movesOf(text json.RawMessage) (Moves, error) {
	counts := struct {
		Remaining *int `json:"remaining"` // is always there
		*Moves
	}{Moves: &Moves{}}
	if err := decode(text, "count of what was moved", &counts); err != nil {
		return Moves{}, err
	}
	if counts.Remaining == nil {
		return Moves{}, missing("count of what was moved")
	}
	moves := *counts.Moves
	moves.Remaining = *counts.Remaining
	for i, what := range moves.InTheWay {
		moves.InTheWay[i] = wire.Text(what)
	}
	return moves, nil
}
