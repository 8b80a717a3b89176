// Package placement decides which worker gets a stream that needs one, and when: who waits and why, in which order they
// go, how many handovers may be under way. It puts back by itself what a lost worker had, and rests workers that fail.
// Which workers a stream may go to, and which of several it goes to, is package routing's part.
package placement

import (
	"math/rand/v2"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
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
	cfg   Config
	fleet *fleet.Fleet
	log   *zap.Logger

	mu         sync.Mutex
	router     *routing.Router
	random     *rand.Rand           // for jitter
	workers    []*worker            // whose links are up, in the order in which they came up
	candidates []*routing.Candidate // theirs, by the same index
	byLink     map[*link.Link]*worker
	suspects   map[string]suspect // by label: workers that died in cooldown or on trial; see breaker
	queues     queues
	underWay   [3]int // handovers, by migration.Kind; placements do not count
	changes    uint64 // of candidates so far: what was concluded from them before may be wrong
	notices    notices
	closed     bool
}

// New returns the Placement that f tells of its workers, before the first one registers. It uses up random. Close ends it.
func New(cfg Config, router *routing.Router, random rand.Source, f *fleet.Fleet, log *zap.Logger) *Placement {
	p := &Placement{
		cfg: cfg, fleet: f, log: log, router: router, random: rand.New(random), queues: queues{byNeed: map[routing.Need]*queue{}},
		byLink: map[*link.Link]*worker{}, suspects: map[string]suspect{},
	}
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

// Release takes back a wish, and the place that may have been granted to it. A notice that was on its way then still
// arrives: see Holds.
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

// Settled says that the handover of r is over: its place is now an ordinary one.
func (p *Placement) Settled(r *Request) {
	p.mu.Lock()
	defer p.unlock()
	p.settle(r)
}

// Holds reports whether r has its place at l at this moment. What a session was told of a grant is out of date if it
// does not.
func (p *Placement) Holds(r *Request, l *link.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.state == granted && r.place.link == l
}

// unlock places whom it can, frees p.mu, and delivers what sessions have to be told.
func (p *Placement) unlock() {
	p.dispatch()
	p.deliver()
	p.mu.Unlock()
}

// dispatch gives places to those who wait, in their order. It costs one look at all workers for each place given, and
// one for each queue that is found blocked: nobody is looked at who needs what others of his queue did not get.
func (p *Placement) dispatch() {
	for q := p.next(); q != nil && !p.closed; q = p.next() {
		i := p.router.Pick(q.need, p.candidates)
		if i < 0 {
			q.blocked = true
			continue
		}
		p.grant(p.queues.pop(q), p.workers[i])
	}
	for _, q := range p.queues.all {
		p.tellWaiting(q)
	}
}

// next returns the queue whose first one goes next, or nil. Handovers beyond their limits hold up nobody else.
func (p *Placement) next() *queue {
	var best, planned *queue
	for _, q := range p.queues.all {
		switch kind := q.need.Kind; {
		case q.blocked || p.atLimit(kind):
		case kind == migration.Planned:
			planned = q.before(planned)
		default:
			best = q.before(best)
		}
	}
	if best == nil && planned != nil && !p.failoversHeldUp() {
		return planned
	}
	return best
}

// atLimit reports whether as many handovers of a kind are under way as may be.
func (p *Placement) atLimit(kind migration.Kind) bool { return p.underWay[kind] >= p.cfg.MaxHandovers }

// failoversHeldUp reports whether failovers wait that a limit holds up. The places that are left are theirs: planned
// handovers come after all who have no worker.
func (p *Placement) failoversHeldUp() bool {
	return slices.ContainsFunc(p.queues.all, func(q *queue) bool {
		return q.need.Kind == migration.Failover && p.reason(q) == routing.Limit
	})
}

// reason returns why a queue waits.
func (p *Placement) reason(q *queue) routing.Reason {
	if !q.blocked {
		return routing.Limit
	}
	if q.reasonAt != p.changes || q.reason == "" {
		q.reason, q.reasonAt = p.router.Unschedulable(q.need, p.candidates), p.changes
	}
	return q.reason
}

// tellWaiting tells those of a queue who do not know it yet why they wait. Waiting for others to be moved is short, and
// not worth telling.
func (p *Placement) tellWaiting(q *queue) {
	if !q.blocked || len(q.untold) == 0 {
		return
	}
	reason := p.reason(q)
	if reason == routing.Limit {
		return
	}
	words := reason.Words(q.need)
	for _, r := range q.untold {
		if r.waits(q) {
			r.told = true
			p.notices.add(notice{kind: waits, request: r, reason: words})
		}
	}
	q.untold = nil
}

func (p *Placement) grant(r *Request, w *worker) {
	p.changes++
	r.state, r.place, r.onTrial = granted, w, r.Kind != migration.Planned
	w.requests[r] = struct{}{}
	w.Granted++
	if r.onTrial {
		w.trials++
	}
	if r.Kind != migration.Placement {
		r.underWay, r.counts = true, r.Kind
		p.count(r, +1)
	}
	w.judge()
	p.notices.add(notice{kind: grants, request: r, link: w.link})
}

// vacate takes a request's place away.
func (p *Placement) vacate(r *Request) {
	w := r.place
	p.settle(r)
	p.endTrial(r)
	delete(w.requests, r)
	w.Granted--
	r.place = nil
	p.improved(w)
}

// settle ends a request's handover.
func (p *Placement) settle(r *Request) {
	if r.underWay {
		p.count(r, -1)
		r.underWay = false
		p.improved(r.place)
	}
}

// count adds to the handovers under way.
func (p *Placement) count(r *Request, n int) {
	p.underWay[r.counts] += n
	switch r.counts {
	case migration.Failover:
		r.place.Failovers += n
	case migration.Planned:
		r.place.Planned += n
	case migration.Placement:
	}
}

// improved has those looked at again who may go to a worker now.
func (p *Placement) improved(w *worker) {
	p.changes++
	for _, q := range p.queues.all {
		q.blocked = q.blocked && p.router.Fit(q.need, &w.Candidate) != ""
	}
}
