package placement

import (
	"maps"
	"slices"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
)

// scheduler decides which request gets which place next. It calls no session: what sessions have to be told is in
// notices. It is guarded by Placement.mu.
type scheduler struct {
	cfg        Config
	router     *routing.Router
	workers    []*worker            // whose links are up, in the order in which they came up
	candidates []*routing.Candidate // theirs, by the same index
	byLink     map[*link.Link]*worker
	queues     queues
	unread     map[*Request]struct{} // that have a place
	underWay   [3]int                // handovers, by migration.Kind; placements do not count
	changes    uint64                // of candidates so far: what was concluded from them before may be wrong
	notices    notices
	closed     bool // nothing is placed any more
}

// worker is a link that is up, with the requests that have a place there. It is guarded by Placement.mu.
type worker struct {
	routing.Candidate
	breaker

	link     *link.Link
	requests map[*Request]struct{}
}

// add adds a worker whose link is up.
func (s *scheduler) add(w *worker) {
	w.judge()
	s.workers, s.candidates, s.byLink[w.link] = append(s.workers, w), append(s.candidates, &w.Candidate), w
	s.improved(w)
}

// remove takes a worker out.
func (s *scheduler) remove(w *worker) {
	i := slices.Index(s.workers, w)
	s.workers, s.candidates = slices.Delete(s.workers, i, i+1), slices.Delete(s.candidates, i, i+1)
	delete(s.byLink, w.link)
	w.stop()
}

// lose takes the places of all requests at a worker away, and has their sessions notified.
func (s *scheduler) lose(w *worker, cause link.Cause) {
	s.changes++
	all := w.inOrder()
	if len(all) == 0 {
		return
	}
	lost := &loss{requests: all, link: w.link, cause: cause}
	for _, r := range all {
		if r.onTrial {
			r.BadTries++
		}
		s.vacate(r)
		r.state, r.loss = losing, lost
	}
	s.notices.add(notice{kind: loses, loss: lost})
}

// inOrder returns the requests at a worker in the order in which they move.
func (w *worker) inOrder() []*Request {
	return slices.SortedFunc(maps.Keys(w.requests), (*Request).compare)
}

// endTrial says that it is known what became of a request's attempt, or that it is over.
func (s *scheduler) endTrial(r *Request) {
	if r.onTrial {
		r.onTrial = false
		r.place.trials--
		if r.since == r.place.successes {
			r.place.Unanswered--
		}
		r.place.judge()
	}
}

// dispatch grants places to the requests that wait, in their order. It costs one look at all workers for each place
// granted, and one for each queue that is found blocked: no request is looked at whose need another of its queue has
// too, and did not get.
func (s *scheduler) dispatch() {
	for more := true; more; more = s.reclaim() {
		for q := s.next(); q != nil && !s.closed; q = s.next() {
			i := s.router.Pick(q.need, s.candidates)
			if i < 0 {
				q.blocked = true
				continue
			}
			s.grant(s.queues.pop(q), s.workers[i])
		}
	}
	for _, q := range s.queues.all {
		s.notifyWaiting(q)
	}
}

// next returns the queue whose first one goes next, or nil. Handovers beyond their limits hold up nobody else.
func (s *scheduler) next() *queue {
	var best, planned *queue
	for _, q := range s.queues.all {
		switch kind := q.need.Kind; {
		case q.blocked || s.atLimit(kind):
		case kind == migration.Planned:
			planned = q.before(planned)
		default:
			best = q.before(best)
		}
	}
	if best == nil && planned != nil && !s.failoversAtLimit() {
		return planned
	}
	return best
}

// atLimit reports whether as many handovers of a kind are under way as may be.
func (s *scheduler) atLimit(kind migration.Kind) bool { return s.underWay[kind] >= s.cfg.MaxHandovers }

// failoversAtLimit reports whether failovers wait for nothing but a limit. The free places are theirs: planned
// handovers come after all streams that have no worker.
func (s *scheduler) failoversAtLimit() bool {
	return slices.ContainsFunc(s.queues.all, func(q *queue) bool {
		return q.need.Kind == migration.Failover && s.reason(q) == routing.Limit
	})
}

// reason returns why a queue waits.
func (s *scheduler) reason(q *queue) routing.Reason {
	if !q.blocked {
		return routing.Limit
	}
	if q.reasonAt != s.changes || q.reason == "" {
		q.reason, q.reasonAt = s.router.Unschedulable(q.need, s.candidates), s.changes
	}
	return q.reason
}

// notifyWaiting tells the sessions of a queue why they wait, each once. Waiting for others to be moved is short, and
// not worth a notice.
func (s *scheduler) notifyWaiting(q *queue) {
	if !q.blocked || len(q.unnotified) == 0 {
		return
	}
	reason := s.reason(q)
	if reason == routing.Limit {
		return
	}
	words := reason.Words(q.need)
	for _, r := range q.unnotified {
		if r.waits(q) {
			r.notified = true
			s.notices.add(notice{kind: waits, request: r, reason: words})
		}
	}
	q.unnotified = nil
}

// grant gives a request a place, and has its session told.
func (s *scheduler) grant(r *Request, w *worker) {
	s.changes++
	s.queues.holders.join(r)
	r.of.count(+1)
	if r.unread {
		s.unread[r] = struct{}{}
	}
	r.state, r.place, r.model, r.onTrial = granted, w, w.Model(r.Need), r.Kind != migration.Planned
	w.requests[r] = struct{}{}
	r.occupy(+1)
	if r.onTrial {
		w.trials++
		w.Unanswered++
		r.since = w.successes
	}
	if r.Kind != migration.Placement {
		r.underWay, r.counts = true, r.Kind
		s.count(r, +1)
	}
	w.judge()
	s.notices.add(notice{kind: grants, request: r, link: w.link})
}

// vacate takes a request's place away.
func (s *scheduler) vacate(r *Request) {
	w := r.place
	s.endHandover(r)
	s.endTrial(r)
	delete(w.requests, r)
	delete(s.unread, r)
	r.of.count(-1)
	s.queues.holders.leave(r)
	r.occupy(-1)
	r.place, r.model = nil, nil
	s.improved(w)
}

// occupy adds to the places that are taken where the request has its own.
func (r *Request) occupy(n int) {
	r.place.Granted += n
	r.model.Granted += n
}

// endHandover ends a request's handover.
func (s *scheduler) endHandover(r *Request) {
	if r.underWay {
		s.count(r, -1)
		r.underWay = false
		s.improved(r.place)
	}
}

// count adds to the handovers under way.
func (s *scheduler) count(r *Request, n int) {
	s.underWay[r.counts] += n
	switch r.counts {
	case migration.Failover:
		r.place.Failovers += n
	case migration.Planned:
		r.place.Planned += n
	case migration.Placement:
	}
}

// improved unblocks the queues whose requests may go to a worker that has changed for the better.
func (s *scheduler) improved(w *worker) {
	s.changes++
	for _, q := range s.queues.all {
		q.blocked = q.blocked && s.router.Fit(q.need, &w.Candidate) != ""
	}
}
