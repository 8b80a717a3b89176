package pool

import (
	"cmp"
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
)

// target is a worker whose link is up, with the places that were given at it. All of it is guarded by Pool.mu.
type target struct {
	*link.Link

	placed   map[uint64]*Waiter // by session
	incoming [3]int             // swaps under way to it, by migration.Kind
	cooldown *time.Timer        // runs for a moment after the worker declined a session; nil while it does not
}

// cooldown is how long a worker that declined a session gets no other. It is short because the usual reason, a
// status that crossed with the attempt, is over at once.
const cooldown = 250 * time.Millisecond

// room reports whether the worker would take one session more.
func (t *target) room() bool {
	return t.Available() && t.cooldown == nil && len(t.placed) < t.Peer().Capacity
}

// remove frees the place that was granted to w.
func (t *target) remove(w *Waiter) {
	w.granted = nil
	if t.placed[w.ID] == w {
		delete(t.placed, w.ID)
	}
}

// find returns the target of a link, or nil if that is down. p.mu is held.
func (p *Pool) find(l *link.Link) *target {
	if i := slices.IndexFunc(p.targets, func(t *target) bool { return t.Link == l }); i >= 0 {
		return p.targets[i]
	}
	return nil
}

// Up makes a worker one of those that get sessions.
func (p *Pool) Up(l *link.Link) {
	p.mu.Lock()
	p.targets = append(p.targets, &target{Link: l, placed: map[uint64]*Waiter{}})
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Changed looks for waiters that fit now.
func (p *Pool) Changed() {
	p.mu.Lock()
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Declined lets a worker that declined a session alone for a moment.
func (p *Pool) Declined(l *link.Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.find(l)
	switch {
	case t == nil:
	case t.cooldown != nil:
		t.cooldown.Reset(cooldown)
	default:
		t.cooldown = time.AfterFunc(cooldown, func() {
			p.mu.Lock()
			t.cooldown = nil
			p.mu.Unlock()
			p.Changed()
		})
	}
}

// Failed finds new places for the sessions of a worker that let go of them.
func (p *Pool) Failed(l *link.Link) {
	p.mu.Lock()
	t := p.find(l)
	if t == nil {
		p.mu.Unlock()
		return
	}
	evicted := t.evict()
	p.mu.Unlock()
	p.reschedule(evicted, link.CauseReported)
}

// Down takes a worker out, and finds new places for its sessions.
func (p *Pool) Down(l *link.Link, cause link.Cause) {
	p.mu.Lock()
	t := p.find(l)
	p.targets = slices.DeleteFunc(p.targets, func(other *target) bool { return other == t })
	if t.cooldown != nil {
		t.cooldown.Stop()
	}
	evicted := t.evict()
	p.mu.Unlock()
	p.reschedule(evicted, cause)
}

// evict takes all places back and returns who had them, oldest session first.
func (t *target) evict() []*Waiter {
	evicted := make([]*Waiter, 0, len(t.placed))
	for _, w := range t.placed {
		evicted = append(evicted, w)
	}
	clear(t.placed)
	slices.SortFunc(evicted, func(a, b *Waiter) int { return cmp.Compare(a.ID, b.ID) })
	return evicted
}

// reschedule finds new places for the sessions of a lost worker. All are fenced and queued before the first place
// is given, so that they move in order of their age.
func (p *Pool) reschedule(evicted []*Waiter, cause link.Cause) {
	var next []*Waiter
	for _, lost := range evicted {
		if w := lost.Session.Lost(lost.Epoch, cause); w != nil {
			next = append(next, w)
		}
	}
	p.mu.Lock()
	for _, lost := range evicted {
		lost.granted = nil
		p.settle(lost)
	}
	for _, w := range next {
		p.enqueue(w)
	}
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Peer returns the link of a worker other than the one named, that knows states and takes sessions; nil if there is none.
func (p *Pool) Peer(label string) *link.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.targets {
		t := p.targets[(p.turn+i)%len(p.targets)]
		if t.Worker() != label && t.Version() >= 2 && t.Stateful() && !p.fleet.Drained(t.Worker()) && t.Available() {
			return t.Link
		}
	}
	return nil
}

// incomingSwaps is how many swaps are under way to the worker.
func (t *target) incomingSwaps() int {
	return t.incoming[migration.Failover] + t.incoming[migration.Planned]
}
