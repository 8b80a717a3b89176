// Package lived measures time as this process lived it. A process that was stopped, or starved of CPU, finds
// that its peers were silent for seconds when it was only deaf itself; it must not judge them by the wall
// clock.
package lived

import (
	"context"
	"sync/atomic"
	"time"
)

// Tick is how often the clock moves.
const Tick = 20 * time.Millisecond

// most is what one tick can add: a tick that comes late counts for no more than this, whatever the wall
// clock says.
const most = 2 * Tick

// Clock counts lived time. It moves in steps of about Tick while Run runs. All methods may be called at any
// time from any goroutine.
type Clock struct{ lived atomic.Int64 }

// Now returns the time lived so far.
func (c *Clock) Now() time.Duration { return time.Duration(c.lived.Load()) }

// Since returns the time lived since an earlier Now.
func (c *Clock) Since(then time.Duration) time.Duration { return c.Now() - then }

// Run moves the clock until ctx ends and calls each after every step.
func (c *Clock) Run(ctx context.Context, each func()) error {
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

func (c *Clock) advance(elapsed time.Duration) { c.lived.Add(int64(min(elapsed, most))) }
