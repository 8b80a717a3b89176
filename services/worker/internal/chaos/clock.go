package chaos

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	slowFactor  = 20
	slowMinimum = 20 * time.Millisecond // where there is no interval to multiply
)

// Clock gives all sessions of a worker the same instants to step at, the multiples of an interval since its
// start, so that the tokens of one step leave together. It is safe for concurrent use.
//
// However many wait, one timer runs, and only while someone waits.
type Clock struct {
	start    time.Time
	interval time.Duration

	free atomic.Bool // there is no step to wait for: it is asked for each token

	mu   sync.Mutex // held for making a step
	slow bool
	next atomic.Pointer[step] // the one that is waited for; nil if nobody does
}

// step is one instant, shared by all who wait for it.
type step struct {
	timer *time.Timer   // guarded by Clock.mu
	over  chan struct{} // closed at the instant, or when it was moved
	moved bool          // to be read once over is closed
}

// NewClock returns a Clock that starts now. With interval 0 nobody waits.
func NewClock(interval time.Duration) *Clock {
	c := &Clock{start: time.Now(), interval: interval}
	c.free.Store(c.length() <= 0)
	return c
}

// length is that of a step now; 0 if nobody has to wait. c.mu is held, or nobody has c yet.
func (c *Clock) length() time.Duration {
	if c.slow {
		return max(slowFactor*c.interval, slowMinimum)
	}
	return c.interval
}

// Slow makes the steps 20 times as long, from the one under way on, until it is called with false.
func (c *Clock) Slow(slow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = slow
	c.free.Store(c.length() <= 0)
	if s := c.next.Swap(nil); s != nil && s.timer.Stop() {
		s.moved = true
		close(s.over)
	}
}

// upcoming returns the next step, or nil if nobody has to wait.
func (c *Clock) upcoming() *step {
	if s := c.next.Load(); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.next.Load(); s != nil {
		return s
	}
	length := c.length()
	if length <= 0 {
		return nil
	}
	s := &step{over: make(chan struct{})}
	c.next.Store(s)
	s.timer = time.AfterFunc(length-time.Since(c.start)%length, func() {
		c.next.CompareAndSwap(s, nil)
		close(s.over)
	})
	return s
}

// Walker takes the steps of one session. The first one is at once: a new session does not wait for the others.
// It is used by one goroutine.
type Walker struct {
	clock   *Clock
	started bool
}

// Walker returns a Walker that has not taken a step yet.
func (c *Clock) Walker() *Walker { return &Walker{clock: c} }

// Wait returns when the next step may be taken, or with the cause of the end of ctx.
func (w *Walker) Wait(ctx context.Context) error {
	if !w.started {
		w.started = true
		return context.Cause(ctx)
	}
	for !w.clock.free.Load() {
		s := w.clock.upcoming()
		if s == nil {
			break
		}
		select {
		case <-s.over:
			if !s.moved {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if ctx.Err() == nil { // the cause would cost more
		return nil
	}
	return context.Cause(ctx)
}
