package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// rounds calls many functions now and then, a few at each tick: thousands of streams that are looked at like this cost
// neither a timer nor a goroutine's wake-up each. The zero value is empty.
type rounds struct {
	mu    sync.Mutex
	now   int // in ticks
	slots [longestRound][]*visit
}

// longestRound is the longest period, in ticks.
const longestRound = 64

// visit is one function that is called.
type visit struct {
	f     func()
	ticks int // of its period, 1 to longestRound
	over  atomic.Bool
}

// Every has f called once in a period, or more often if that is long, by the goroutine of Run, which it must not block;
// until stop is called. One call may be under way then.
func (c *StallProof) Every(period time.Duration, f func()) (stop func()) {
	v := &visit{f: f, ticks: int(max(1, min(period/Tick, longestRound)))}
	c.rounds.mu.Lock()
	defer c.rounds.mu.Unlock()
	c.rounds.add(v)
	return func() { v.over.Store(true) }
}

// add puts a visit where it is due next. r.mu is held.
func (r *rounds) add(v *visit) {
	slot := &r.slots[(r.now+v.ticks)%longestRound]
	*slot = append(*slot, v)
}

// tick calls those that are due.
func (r *rounds) tick() {
	for _, v := range r.due() {
		if !v.over.Load() {
			v.f()
		}
	}
}

// due returns the visits of the next tick, and forgets those that are over.
func (r *rounds) due() []*visit {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now++
	slot := &r.slots[r.now%longestRound]
	due := *slot
	*slot = nil
	for _, v := range due {
		if !v.over.Load() {
			r.add(v)
		}
	}
	return due
}
