// Package clock has the clock that peers are judged by.
package clock

import (
	"context"
	"sync/atomic"
	"time"
)

// Tick is how often a StallProof clock moves.
const Tick = 20 * time.Millisecond

// most is what one tick can add: a tick that comes late counts for no more than this, whatever the wall clock says.
const most = 2 * Tick

// StallProof is a clock that stands still while its own process does. A process that was stopped, or starved of CPU,
// finds that its peers were silent for seconds when it was only deaf itself; by this clock it does not judge them for
// that. It is for judging, not for measuring: its grain is Tick.
//
// It moves in steps of about Tick while Run runs. All methods may be called at any time from any goroutine.
type StallProof struct{ passed atomic.Int64 }

// Now returns the time that has passed so far.
func (c *StallProof) Now() time.Duration { return time.Duration(c.passed.Load()) }

// Since returns the time that has passed since an earlier Now.
func (c *StallProof) Since(then time.Duration) time.Duration { return c.Now() - then }

// Run moves the clock until ctx ends and calls each after every step.
func (c *StallProof) Run(ctx context.Context, each func()) error {
	ticker := time.NewTicker(Tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now()
		c.advance(now.Sub(last))
		last = now
		each()
	}
}

func (c *StallProof) advance(elapsed time.Duration) { c.passed.Add(int64(min(elapsed, most))) }
