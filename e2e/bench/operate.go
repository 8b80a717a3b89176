package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// operate connects to the director as an operator.
func (c *outside) operate(ctx context.Context) (*operator.Client, error) {
	tls, err := identity.FromDir(filepath.Join(c.Dir, "certs"), identity.Operator)
	if err != nil {
		return nil, err
	}
	return operator.Dial(ctx, cluster.Addr(c.Ports[1]), operator.Options{TLS: tls})
}

// history reads the director's swaps.
type history struct {
	cluster *outside
	seen    int
}

// news returns the swaps that ended since the last call.
func (h *history) news() ([]migration.Record, error) {
	var status struct {
		Total int
		Swaps []migration.Record
	}
	if err := h.cluster.Status("/v1/swaps?limit=1000", &status); err != nil {
		return nil, err
	}
	fresh := status.Total - h.seen
	if fresh > len(status.Swaps) {
		return nil, fmt.Errorf("%d swaps since the last look, the director keeps %d", fresh, len(status.Swaps))
	}
	h.seen = status.Total
	return status.Swaps[len(status.Swaps)-fresh:], nil
}

// drainTimeout is for moving all streams once.
const drainTimeout = 10 * time.Minute

// move has all streams moved away from a worker, and waits until the director says that they are. A single swap that
// was given up is no error: the director's record has it.
func (l *load) move(ctx context.Context, o *operator.Client, from string) error {
	if len(l.streams) == 1 {
		_, err := o.Swap(ctx, l.conns[0].ID(), 0, "")
		if errors.Is(err, &wire.Error{Code: wire.CodeCancelled}) {
			return nil
		}
		return err
	}
	if _, err := o.Drain(ctx, from, drainTimeout, false, nil); err != nil {
		return err
	}
	return o.Undrain(ctx, from)
}
