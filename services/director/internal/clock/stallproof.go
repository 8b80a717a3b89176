// Package clock has the clock that peers are judged by.
package clock

import (
	"context"
	"sync"
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
type StallProof struct {
	passed atomic.Int64
	rounds rounds

	mu    sync.Mutex
	last  time.Time     // of the newest step; zero before Run
	stall time.Duration // the newest one
	ended time.Time     // when that was over
	done  bool          // Run has returned
}

// Now returns the time that has passed so far.
func (c *StallProof) Now() time.Duration { return time.Duration(c.passed.Load()) }

// Since returns the time that has passed since an earlier Now.
func (c *StallProof) Since(then time.Duration) time.Duration { return c.Now() - then }

// Run moves the clock until ctx ends and calls each after every step.
func (c *StallProof) Run(ctx context.Context, each func()) error {
	ticker := time.NewTicker(Tick)
	defer ticker.Stop()
	c.step(time.Now())
	defer c.finish()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		c.advance(c.step(time.Now()))
		c.rounds.tick()
		each()
	}
}

func (c *StallProof) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
}

// Late returns how long the step to come has been due, while Run runs: it waits for the one before, or for a processor.
func (c *StallProof) Late() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.IsZero() || c.done {
		return 0
	}
	return max(0, time.Since(c.last)-Tick)
}

// step records that a step begins, and returns how long the one before it took.
func (c *StallProof) step(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.IsZero() {
		c.last = now
	}
	took := now.Sub(c.last)
	if took >= stallLeast {
		c.stall, c.ended = took, now
	}
	c.last = now
	return took
}

const (
	stallLeast = time.Second     // a shorter one is business as usual on a busy machine
	aftermath  = 2 * time.Second // how long what a stall has led to comes in afterwards
)

// Stall returns how long this process was stopped or starved, if it is only coming round: the stall goes on as far as
// the clock knows, or has just ended. Otherwise it returns 0.
func (c *StallProof) Stall() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gap := time.Since(c.last); !c.last.IsZero() && gap >= stallLeast {
		return gap
	}
	if time.Since(c.ended) < aftermath {
		return c.stall
	}
	return 0
}

func (c *StallProof) advance(elapsed time.Duration) { c.passed.Add(int64(min(elapsed, most))) }
