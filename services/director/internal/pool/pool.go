// Package pool knows the workers: who is registered, which links are up, who has room; it gives waiting
// sessions to them, and takes sessions away from those that are lost.
package pool

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config says how a Pool reaches and judges workers.
type Config struct {
	DirectorID      string
	Instance        string        // of this process: it tells workers its links and sessions from those before it
	KeepAlive       time.Duration // ping a silent worker, and let it report progress, this often
	IdleTimeout     time.Duration // without any packet
	ProgressTimeout time.Duration // without progress, while packets come
	MaxSwaps        int           // failovers under way at once, and as many planned swaps
	MaxPerTarget    int           // swaps under way to one worker
	Version         uint32        // highest protocol version to speak with workers
}

// Deps is what a Pool needs from outside.
type Deps struct {
	Network quicnet.Network
	TLS     identity.Source
	Clock   *lived.Clock
	Log     *zap.Logger

	TokenKeys func() *wirepb.TokenKeys     // of migration tokens, for workers
	Draining  func(label, instance string) // called when a worker asks to be emptied; must not block
}

// Pool is safe for concurrent use. Lock order: Pool.mu, then Link.mu, then a session's own.
type Pool struct {
	cfg  Config
	deps Deps
	log  *zap.Logger

	keepers sync.WaitGroup // one goroutine per worker
	ctx     context.Context
	stop    context.CancelCauseFunc

	mu       sync.Mutex
	workers  map[string]*Worker // by label
	links    []*Link            // up, in the order in which they came up
	turn     int                // round robin: index of the link to try first
	waiting  [3]queue           // by migration.Kind
	under    [3]int             // swaps under way, by migration.Kind; placements do not count
	untold   int                // how many waiters have not been told that they wait
	draining map[string]bool    // labels of workers that get nothing new
}

// NewID returns 16 hex digits, random.
func NewID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	return hex.EncodeToString(id)
}

// New returns an empty pool. Close ends it.
func New(cfg Config, deps Deps) *Pool {
	p := &Pool{cfg: cfg, deps: deps, log: deps.Log, workers: map[string]*Worker{}, draining: map[string]bool{}}
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
	if w.Kind != migration.Placement {
		w.target = link
		link.incoming[w.Kind]++
		p.under[w.Kind]++
	}
	w.granted = link
	p.turn = p.after(link)
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

// pick returns the next link, round robin, that could take w; a worker to avoid only if there is no other, and never
// for a planned swap: the session is on it.
func (p *Pool) pick(w *Waiter) *Link {
	var avoided *Link
	for i := range p.links {
		link := p.links[(p.turn+i)%len(p.links)]
		switch {
		case !p.suits(w, link) || !link.room():
		case link.worker.Label != w.Avoid:
			return link
		case w.Kind != migration.Planned:
			avoided = link
		}
	}
	return avoided
}

// suits reports whether w may go to a worker at all, leaving aside whether that has room.
func (p *Pool) suits(w *Waiter, link *Link) bool {
	switch {
	case w.Fingerprint != "" && w.Fingerprint != link.worker.Fingerprint,
		w.Want != "" && w.Want != link.worker.Label,
		p.draining[link.worker.Label]:
		return false
	}
	return p.mayTake(w.Kind, link)
}

// mayTake reports whether one swap more may be under way to a worker. Planned swaps can take long: they yield to
// failovers, and hold up none.
func (p *Pool) mayTake(kind migration.Kind, link *Link) bool {
	n := link.incoming[migration.Failover]
	if kind == migration.Planned {
		n += link.incoming[migration.Planned]
	}
	return kind == migration.Placement || n < p.cfg.MaxPerTarget
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
	engine, available, room := 0, 0, 0
	for _, l := range p.links {
		if w.Fingerprint != "" && l.worker.Fingerprint != w.Fingerprint || w.Want != "" && l.worker.Label != w.Want ||
			w.Kind == migration.Planned && l.worker.Label == w.Avoid {
			continue
		}
		engine++
		if l.available() && !p.draining[l.worker.Label] {
			available++
			if l.room() {
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

// linkUp makes a link one of those that get sessions.
func (p *Pool) linkUp(l *Link) {
	p.mu.Lock()
	p.links = append(p.links, l)
	l.worker.link = l
	p.tellDrainMark(l.worker)
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
