// Package pace decides when a worker's sessions may go on: the Clock gives them a common step, and the Gate
// stops them all.
package pace

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	slowFactor  = 20
	slowMinimum = 20 * time.Millisecond // where there is no interval to multiply
)

// Clock gives all sessions of a worker the same instants to step at, the multiples of an interval since its
// start, so that the tokens of one step leave together. It is safe for concurrent use.
type Clock struct {
	start    time.Time
	interval time.Duration
	slow     atomic.Bool
}

// NewClock returns a Clock that starts now. With interval 0 nobody waits.
func NewClock(interval time.Duration) *Clock {
	return &Clock{start: time.Now(), interval: interval}
}

// Slow makes the steps 20 times as long, until it is called with false. Steps under way are not changed.
func (c *Clock) Slow(slow bool) { c.slow.Store(slow) }

func (c *Clock) step() time.Duration {
	if !c.slow.Load() {
		return c.interval
	}
	return max(slowFactor*c.interval, slowMinimum)
}

// next is how long it is until the next step.
func (c *Clock) next() time.Duration {
	step := c.step()
	if step <= 0 {
		return 0
	}
	return step - time.Since(c.start)%step
}

// Walker takes the steps of one session. The first one is at once: a new session does not wait for the others.
// It is used by one goroutine.
type Walker struct {
	clock   *Clock
	started bool
	timer   *time.Timer
}

// Walker returns a Walker that has not taken a step yet.
func (c *Clock) Walker() *Walker { return &Walker{clock: c} }

// Wait returns when the next step may be taken, or with the cause of the end of ctx.
func (w *Walker) Wait(ctx context.Context) error {
	if !w.started {
		w.started = true
		return context.Cause(ctx)
	}
	wait := w.clock.next()
	if wait == 0 {
		return context.Cause(ctx)
	}
	if w.timer == nil {
		w.timer = time.NewTimer(wait)
	} else {
		w.timer.Reset(wait)
	}
	select {
	case <-w.timer.C:
		return nil
	case <-ctx.Done():
		w.timer.Stop()
		return context.Cause(ctx)
	}
}
