// Package pool gives waiting sessions to workers, and finds other workers for those of one that is lost.
package pool

import (
	"container/heap"
	"slices"
	"sync"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/shared/migration"
)

// Config bounds the swaps that are under way.
type Config struct {
	MaxSwaps     int // failovers under way at once, and as many planned swaps
	MaxPerTarget int // swaps under way to one worker
}

// Pool is safe for concurrent use. It calls sessions and asks the fleet; the fleet calls it with no lock held. Lock
// order: Pool.mu, then the fleet's and its links'. Sessions are called with none of them held.
type Pool struct {
	cfg   Config
	fleet *fleet.Fleet

	mu      sync.Mutex
	targets []*target // workers whose link is up, in the order in which they came up
	turn    int       // round robin: index of the target to try first
	waiting [3]queue  // by migration.Kind
	under   [3]int    // swaps under way, by migration.Kind; placements do not count
	untold  int       // how many waiters have not been told that they wait
}

// New returns a pool that places sessions on the workers of f.
func New(cfg Config, f *fleet.Fleet) *Pool {
	p := &Pool{cfg: cfg, fleet: f}
	f.Serve(p)
	return p
}

// Acquire asks for a worker. The answer comes through w.Session. Asking twice with the same w is asking once.
func (p *Pool) Acquire(w *Waiter) {
	p.mu.Lock()
	p.enqueue(w)
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Release takes back a wish, and the place that may have been granted to it.
func (p *Pool) Release(w *Waiter) {
	p.mu.Lock()
	if w.index >= 0 && !w.told {
		p.untold--
	}
	p.queueOf(w).remove(w)
	if w.granted != nil {
		w.granted.remove(w)
	}
	p.settle(w)
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Settle says that the swap of w is over: its place is now an ordinary one.
func (p *Pool) Settle(w *Waiter) {
	p.mu.Lock()
	p.settle(w)
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// Alternative reports whether a worker other than avoid could take a session with this engine now.
func (p *Pool) Alternative(fingerprint, avoid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.pick(&Waiter{Fingerprint: fingerprint, Avoid: avoid})
	return t != nil && t.Worker() != avoid
}

func (p *Pool) enqueue(w *Waiter) {
	if w.index == fresh {
		heap.Push(p.queueOf(w), w)
		p.untold++
	}
}

func (p *Pool) queueOf(w *Waiter) *queue { return &p.waiting[w.Kind] }

// next takes the waiter that goes first, or returns nil. Swaps beyond their limits hold up nobody else, but planned ones
// come after all who have no worker, those that are held up included.
func (p *Pool) next() *Waiter {
	var from *queue
	for _, kind := range []migration.Kind{migration.Failover, migration.Placement, migration.Planned} {
		q := &p.waiting[kind]
		switch {
		case len(*q) == 0, p.heldUp(kind):
		case kind == migration.Planned && len(p.waiting[migration.Failover]) > 0:
		case from == nil, kind != migration.Planned && (*q)[0].compare((*from)[0]) < 0:
			from = q
		}
	}
	if from == nil {
		return nil
	}
	w, _ := heap.Pop(from).(*Waiter)
	return w
}

// heldUp reports whether nobody of this kind could get a place now, whatever engine is needed.
func (p *Pool) heldUp(kind migration.Kind) bool {
	return p.under[kind] >= p.cfg.MaxSwaps || p.pick(&Waiter{Kind: kind}) == nil
}

func (p *Pool) settle(w *Waiter) {
	if w.target != nil {
		w.target.incoming[w.Kind]--
		w.target = nil
		p.under[w.Kind]--
	}
}

// dispatch gives places to waiters, oldest first, and returns what to tell them once p.mu is free. A waiter
// that fits nowhere does not hold up those that need another engine.
func (p *Pool) dispatch() (after func()) {
	var calls []func()
	var passed []*Waiter
	for w := p.next(); w != nil; w = p.next() {
		t := p.pick(w)
		if t == nil {
			passed = append(passed, w)
			continue
		}
		p.grant(w, t)
		calls = append(calls, func() { w.Session.Granted(w, t.Link) })
	}
	for _, w := range passed {
		heap.Push(p.queueOf(w), w)
	}
	if p.untold > 0 && (len(passed) > 0 || p.pick(&Waiter{}) == nil) {
		calls = append(calls, p.tellWaiting()...)
	}
	return func() {
		for _, call := range calls {
			call()
		}
	}
}

func (p *Pool) grant(w *Waiter, t *target) {
	if !w.told {
		p.untold--
	}
	if w.Kind != migration.Placement {
		w.target = t
		t.incoming[w.Kind]++
		p.under[w.Kind]++
	}
	t.placed[w.ID], w.granted = w, t
	p.turn = p.after(t)
}

// tellWaiting returns the calls that tell each waiter, once, why it waits.
func (p *Pool) tellWaiting() []func() {
	var calls []func()
	for _, w := range slices.Concat(p.waiting[:]...) {
		if w.told {
			continue
		}
		w.told = true
		reason := p.shortage(w)
		calls = append(calls, func() { w.Session.Waiting(w, reason) })
	}
	p.untold = 0
	return calls
}

// pick returns the next target, round robin, that could take w; a worker to avoid only if there is no other, and never
// for a planned swap: the session is on it.
func (p *Pool) pick(w *Waiter) *target {
	var avoided *target
	for i := range p.targets {
		t := p.targets[(p.turn+i)%len(p.targets)]
		switch {
		case !p.suits(w, t) || !t.room():
		case t.Worker() != w.Avoid:
			return t
		case w.Kind != migration.Planned:
			avoided = t
		}
	}
	return avoided
}

// suits reports whether w may go to a worker at all, leaving aside whether that has room.
func (p *Pool) suits(w *Waiter, t *target) bool {
	switch {
	case w.Fingerprint != "" && w.Fingerprint != t.Fingerprint(),
		w.Want != "" && w.Want != t.Worker(),
		p.fleet.Drained(t.Worker()):
		return false
	}
	return p.mayTake(w.Kind, t)
}

// mayTake reports whether one swap more may be under way to a worker. Planned swaps can take long: they yield to
// failovers, and hold up none.
func (p *Pool) mayTake(kind migration.Kind, t *target) bool {
	n := t.incoming[migration.Failover]
	if kind == migration.Planned {
		n += t.incoming[migration.Planned]
	}
	return kind == migration.Placement || n < p.cfg.MaxPerTarget
}

// after returns the index behind t's, for the next pick.
func (p *Pool) after(t *target) int { return (slices.Index(p.targets, t) + 1) % len(p.targets) }

// shortage says in words why w gets no worker.
func (p *Pool) shortage(w *Waiter) string {
	if len(p.targets) == 0 {
		return "no worker is connected"
	}
	engine, available, room := 0, 0, 0
	for _, t := range p.targets {
		if w.Fingerprint != "" && t.Fingerprint() != w.Fingerprint || w.Want != "" && t.Worker() != w.Want ||
			w.Kind == migration.Planned && t.Worker() == w.Avoid {
			continue
		}
		engine++
		if t.Available() && !p.fleet.Drained(t.Worker()) {
			available++
			if t.room() {
				room++
			}
		}
	}
	switch {
	case engine == 0 && w.Kind == migration.Planned:
		return "no other connected worker runs the engine that this stream began with"
	case engine == 0:
		return "no connected worker runs the engine that this stream began with"
	case available == 0:
		return "no worker is available"
	case room > 0:
		return "other streams are being moved first"
	default:
		return "all workers are full"
	}
}
