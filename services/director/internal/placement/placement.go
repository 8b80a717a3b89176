// Package placement decides which worker gets a stream that needs one, and when: who waits and why, in which order they
// go, how many handovers may be under way. It queues by itself what a lost worker had, and gives workers that fail a
// cooldown. Which workers a stream may go to, and which of several it goes to, is package routing's part.
package placement

import (
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
)

// Config bounds what goes on at once.
type Config struct {
	MaxHandovers int // failovers under way at once, and as many planned handovers
	MaxPerTarget int // handovers under way to one worker
}

// Placement is safe for concurrent use. It has one lock, which is held across nothing that blocks; it asks the fleet
// while it has it, and the fleet calls it without its own. No session is called while the lock is held: sessions are
// told afterwards, in the order in which things happened (see notices). It owns no goroutine but the timers of
// cooldowns, which Close stops.
type Placement struct {
	fleet *fleet.Fleet

	mu sync.Mutex
	scheduler
	cooldowns cooldowns
}

// New returns the Placement that f tells of its workers, before the first one registers. It uses up random. Close ends
// it.
func New(cfg Config, router *routing.Router, random rand.Source, f *fleet.Fleet, log *zap.Logger) *Placement {
	p := &Placement{fleet: f, scheduler: scheduler{
		cfg: cfg, router: router, queues: queues{holders: holders{}, byNeed: map[routing.Need]*queue{}},
		byLink: map[*link.Link]*worker{}, unread: map[*Request]struct{}{},
	}}
	p.cooldowns = cooldowns{log: log, random: rand.New(random), suspects: map[string]suspect{}, over: p.cooled}
	f.Serve(p)
	return p
}

// Close stops the timers. Nothing is placed any more.
func (p *Placement) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.workers {
		w.stop()
	}
}

// Queue asks for a place. The answer comes through r.Session. A request that waits already, or has a place, is left as
// it is.
func (p *Placement) Queue(r *Request) {
	p.mu.Lock()
	defer p.unlock()
	if r.state == idle {
		p.queues.add(r)
	}
}

// Release takes back a request, and the place that may have been granted to it. A notice that was on its way then still
// arrives: see HasPlace.
func (p *Placement) Release(r *Request) {
	p.mu.Lock()
	defer p.unlock()
	switch r.state {
	case queued:
		p.queues.remove(r)
	case granted:
		p.vacate(r)
	case idle, losing:
	}
	r.state, r.loss = idle, nil
}

// HandoverEnded says that the handover of r is over: its place is now an ordinary one, which no limit counts.
func (p *Placement) HandoverEnded(r *Request) {
	p.mu.Lock()
	defer p.unlock()
	p.endHandover(r)
}

// HasPlace reports whether r has its place at l at this moment. What a session was told of a grant is out of date if it
// does not.
func (p *Placement) HasPlace(r *Request, l *link.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.state == granted && r.place.link == l
}

// Report says that r's attempt at l made progress, or that it failed, or stayed silent for too long, before it made
// any. The session reports once for each attempt, and reports a failure before it releases r. A worker that is lost
// needs no report.
func (p *Placement) Report(r *Request, l *link.Link, ok bool) {
	p.mu.Lock()
	defer p.unlock()
	w := p.byLink[l]
	if w == nil {
		return
	}
	if r.place == w {
		p.endTrial(r)
	}
	if !ok {
		r.BadTries++
		p.cooldowns.failed(w, r.ID)
		p.changes++
		return
	}
	r.BadTries = 0
	if p.cooldowns.succeeded(w) {
		p.improved(w)
	}
}

// Proven reports whether a worker has served something since its link came up, or since it was last in cooldown. What
// fails at one that has not may be the worker's fault rather than the stream's.
func (p *Placement) Proven(l *link.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.byLink[l]
	return w != nil && w.Proven
}

// cooled ends a cooldown: the next stream is a probe.
func (p *Placement) cooled(w *worker) {
	p.mu.Lock()
	defer p.unlock()
	if time.Now().Before(w.warmAt) { // another one has begun meanwhile
		return
	}
	w.stopCooldown()
	w.judge()
	p.improved(w)
}

// Down takes a link out, and puts its requests back.
func (p *Placement) Down(l *link.Link, cause link.Cause) {
	p.mu.Lock()
	defer p.unlock()
	w := p.byLink[l]
	if w == nil {
		return
	}
	p.cooldowns.lost(w, cause)
	p.remove(w)
	p.lose(w, cause)
}

// unlock places whom it can, frees p.mu, and delivers what sessions have to be told.
func (p *Placement) unlock() {
	p.dispatch()
	p.deliver()
	p.mu.Unlock()
}

// deliver is called with p.mu held, and returns with it held.
func (p *Placement) deliver() {
	s := &p.notices
	if s.delivering {
		return
	}
	s.delivering = true
	for len(s.pending) > 0 {
		batch := s.pending
		s.pending = nil
		p.mu.Unlock()
		for _, n := range batch {
			p.tell(n)
		}
		p.mu.Lock()
	}
	s.delivering = false
}

// tell delivers one notice, with no lock held.
func (p *Placement) tell(n notice) {
	switch n.kind {
	case grants:
		n.request.Session.Granted(n.request, n.link)
	case waits:
		n.request.Session.Waiting(n.request, n.reason)
	case loses:
		p.putBack(n.loss)
	}
}

// putBack has the sessions of a lost worker fenced, all of them, and queues again those that want it, before the first
// new place is given: so they move in the order of their age.
func (p *Placement) putBack(l *loss) {
	again := make([]bool, len(l.requests))
	for i, r := range l.requests {
		again[i] = r.Session.Lost(r, l.link, l.cause)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range l.requests {
		if r.loss != l { // it was taken back meanwhile
			continue
		}
		r.state, r.loss = idle, nil
		if again[i] {
			p.queues.add(r)
		}
	}
	p.dispatch()
}
