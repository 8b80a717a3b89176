// Package pool knows the workers: who is registered, which links are up, who has room; it gives waiting
// sessions to them, and takes sessions away from those that are lost.
package pool

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// Config says how a Pool reaches and judges workers.
type Config struct {
	DirectorID      string
	KeepAlive       time.Duration // ping a silent worker, and let it report progress, this often
	IdleTimeout     time.Duration // without any packet
	ProgressTimeout time.Duration // without progress, while packets come
	MaxSwaps        int           // failovers under way at once
}

// Deps is what a Pool needs from outside.
type Deps struct {
	Network quicnet.Network
	TLS     identity.Source
	Clock   *lived.Clock
	Log     *zap.Logger
}

// Pool is safe for concurrent use. Lock order: Pool.mu, then Link.mu, then a session's own.
type Pool struct {
	cfg      Config
	deps     Deps
	log      *zap.Logger
	instance string // of this process, for workers

	keepers sync.WaitGroup // one goroutine per worker
	ctx     context.Context
	stop    context.CancelCauseFunc

	mu       sync.Mutex
	workers  map[string]*Worker // by label
	links    []*Link            // up, in the order in which they came up
	turn     int                // round robin: index of the link to try first
	moving   queue              // waiters that count against the swaps under way
	arriving queue              // those that do not
	untold   int                // how many have not been told that they wait
	swaps    int                // failovers under way
}

// New returns an empty pool. Close ends it.
func New(cfg Config, deps Deps) *Pool {
	p := &Pool{cfg: cfg, deps: deps, log: deps.Log, instance: newID(), workers: map[string]*Worker{}}
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	return p
}

// Close leaves all workers and waits until nothing of the pool runs any more.
func (p *Pool) Close() {
	p.stop(errShutdown)
	p.keepers.Wait()
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
		w.granted = nil
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
	link := p.pick(&Waiter{Fingerprint: fingerprint, Avoid: avoid})
	return link != nil && link.worker.Label != avoid
}

func (p *Pool) enqueue(w *Waiter) {
	if w.index == fresh {
		heap.Push(p.queueOf(w), w)
		p.untold++
	}
}

func (p *Pool) queueOf(w *Waiter) *queue {
	if w.Failover {
		return &p.moving
	}
	return &p.arriving
}

// next takes the oldest waiter that may go now, or returns nil. Failovers beyond their limit hold up nobody else.
func (p *Pool) next() *Waiter {
	from := &p.arriving
	if p.swaps < p.cfg.MaxSwaps && len(p.moving) > 0 && (len(p.arriving) == 0 || p.moving[0].ID < p.arriving[0].ID) {
		from = &p.moving
	}
	if len(*from) == 0 {
		return nil
	}
	w, _ := heap.Pop(from).(*Waiter)
	return w
}

func (p *Pool) settle(w *Waiter) {
	if w.swaps {
		w.swaps = false
		p.swaps--
	}
}

// dispatch gives places to waiters, oldest first, and returns what to tell them once p.mu is free. A waiter
// that fits nowhere does not hold up those that need another engine.
func (p *Pool) dispatch() (after func()) {
	var calls []func()
	var passed []*Waiter
	for p.pick(&Waiter{}) != nil {
		w := p.next()
		if w == nil {
			break
		}
		link := p.pick(w)
		if link == nil || !link.add(w) {
			passed = append(passed, w)
			continue
		}
		p.grant(w, link)
		calls = append(calls, func() { w.Session.Granted(w, link) })
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

func (p *Pool) grant(w *Waiter, link *Link) {
	if !w.told {
		p.untold--
	}
	if w.Failover {
		w.swaps = true
		p.swaps++
	}
	w.granted = link
	p.turn = p.after(link)
}

// tellWaiting returns the calls that tell each waiter, once, why it waits.
func (p *Pool) tellWaiting() []func() {
	var calls []func()
	for _, w := range slices.Concat(p.moving, p.arriving) {
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

// pick returns the next link, round robin, that could take w; a worker to avoid only if there is no other.
func (p *Pool) pick(w *Waiter) *Link {
	var avoided *Link
	for i := range p.links {
		link := p.links[(p.turn+i)%len(p.links)]
		switch {
		case !link.room() || w.Fingerprint != "" && w.Fingerprint != link.worker.Fingerprint:
		case link.worker.Label == w.Avoid:
			avoided = link
		default:
			return link
		}
	}
	return avoided
}

// after returns the index behind link's, for the next pick.
func (p *Pool) after(link *Link) int {
	for i, l := range p.links {
		if l == link {
			return (i + 1) % len(p.links)
		}
	}
	return 0
}

// shortage says in words why w gets no worker.
func (p *Pool) shortage(w *Waiter) string {
	if len(p.links) == 0 {
		return "no worker is connected"
	}
	available, engine := 0, 0
	for _, l := range p.links {
		if w.Fingerprint != "" && l.worker.Fingerprint != w.Fingerprint {
			continue
		}
		engine++
		if l.available() {
			available++
		}
	}
	switch {
	case engine == 0:
		return "no connected worker runs the engine that this stream began with"
	case available == 0:
		return "no worker is available"
	default:
		return "all workers are full"
	}
}

// linkUp makes a link one of those that get sessions.
func (p *Pool) linkUp(l *Link) {
	p.mu.Lock()
	p.links = append(p.links, l)
	l.worker.link = l
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// changed looks for waiters that fit now.
func (p *Pool) changed() {
	p.mu.Lock()
	after := p.dispatch()
	p.mu.Unlock()
	after()
}

// linkDown takes a link out, so that nothing more is given to it.
func (p *Pool) linkDown(l *Link) {
	p.mu.Lock()
	if i := slices.Index(p.links, l); i >= 0 {
		p.links = slices.Delete(p.links, i, i+1)
		l.worker.link = nil
	}
	p.mu.Unlock()
}

// orphan finds new places for the sessions of a lost worker. All are fenced and queued before the first place
// is given, so that they move in order of their age.
func (p *Pool) orphan(attempts []attempt, cause Cause) {
	var wishes []*Waiter
	for _, a := range attempts {
		if w := a.session.Lost(a.wish.Epoch, cause); w != nil {
			wishes = append(wishes, w)
		}
	}
	p.mu.Lock()
	for _, a := range attempts {
		a.wish.granted = nil
		p.settle(a.wish)
	}
	for _, w := range wishes {
		p.enqueue(w)
	}
	after := p.dispatch()
	p.mu.Unlock()
	after()
}
