// Package chaos makes a worker slow, or fail, from outside: it wraps the engines, the network, and what tells others that the
// worker is alive. A worker that has no pace and is not to fail has nothing of it on its way. Only the wiring imports it.
package chaos

import (
	"context"
	"errors"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
)

// Chaos wraps the parts of one worker.
type Chaos struct {
	mode     string
	gate     *Gate // nil where the worker never hangs
	clock    *Clock
	impaired *quicnet.Impaired
	loss     float64
}

// New returns the Chaos of a worker whose engines make a chunk at each interval (0: as fast as they can), which loses that
// fraction of its packets, and fails in a mode.
func New(mode string, interval time.Duration, loss float64) *Chaos {
	c := &Chaos{mode: mode, loss: loss}
	if mode == Hang {
		c.gate = &Gate{}
	}
	if mode == Slow || interval > 0 {
		c.clock = NewClock(interval)
	}
	return c
}

// Network returns nw with its packets lost: some of them, and all while a worker drops them.
func (c *Chaos) Network(nw quicnet.Network) quicnet.Network {
	if c.mode != Drop && c.loss == 0 {
		return nw
	}
	c.impaired = quicnet.Impair(nw, c.loss)
	return c.impaired
}

// Load returns what a heartbeat says, which a hung worker does not come to say.
func (c *Chaos) Load(sessions func() int) func(ctx context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		if err := c.pass(ctx); err != nil {
			return 0, err
		}
		return sessions(), nil
	}
}

// Check returns a health check that fails where the worker hangs for longer than a timeout.
func (c *Chaos) Check(timeout time.Duration, check func() error) func() error {
	if c.gate == nil {
		return check
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if c.pass(ctx) != nil {
			return errors.New("the worker hangs: nothing is sent")
		}
		return check()
	}
}

// pass waits at the gate.
func (c *Chaos) pass(ctx context.Context) error {
	if c.gate == nil {
		return nil
	}
	return c.gate.Wait(ctx)
}

// Effect returns what a failure of the mode does. A worker that says so (Error) or dies (Exit) needs no wrapping: what it does
// then is given.
func (c *Chaos) Effect(says, dies Effect) Effect {
	switch c.mode {
	case Error:
		return says
	case Exit:
		return dies
	case Hang:
		return Effect{Begin: func(string) { c.gate.Shut() }, End: c.gate.Open}
	case Drop:
		return Effect{Begin: func(string) { c.impaired.DropAll(true) }, End: func() { c.impaired.DropAll(false) }}
	case Slow:
		return Effect{Begin: func(string) { c.clock.Slow(true) }, End: func() { c.clock.Slow(false) }}
	}
	return Effect{Begin: func(string) {}, End: func() {}}
}
