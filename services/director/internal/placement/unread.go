package placement

import (
	"container/heap"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
)

// Unread says whether the client of r's stream reads nothing. Such a stream goes last, and gives its place back when
// another one waits for it.
func (p *Placement) Unread(r *Request, unread bool) {
	p.mu.Lock()
	defer p.unlock()
	if r.unread == unread {
		return
	}
	r.unread = unread
	switch {
	case r.state == queued:
		g := r.queue.group(r.of)
		heap.Fix(&g.waiting, r.index)
		heap.Fix(&r.queue.groups, g.index)
	case r.state == granted && unread:
		p.unread[r] = struct{}{}
	case r.state == granted:
		delete(p.unread, r)
	}
}

// reclaim takes a place back from a stream that nobody reads, for one that waits and could have it; of the streams that
// could give one it takes one of who has most places. It reports whether it did.
func (s *scheduler) reclaim() bool {
	if s.closed {
		return false
	}
	for _, q := range s.queues.all {
		if !q.blocked || q.need.Kind == migration.Planned || q.first().unread {
			continue
		}
		if r := s.dispensable(q); r != nil {
			s.takeBack(r)
			return true
		}
	}
	return false
}

// dispensable returns the request whose place would be of use to the first one of a queue, or nil.
func (s *scheduler) dispensable(q *queue) (found *Request) {
	for r := range s.unread {
		if r.underWay || found != nil && (found.of.places > r.of.places || found.of.places == r.of.places && found.ID > r.ID) {
			continue
		}
		r.occupy(-1)
		if s.router.Fit(q.need, &r.place.Candidate) == "" {
			found = r
		}
		r.occupy(+1)
	}
	return found
}

// takeBack takes a request's place away, and has its session notified.
func (s *scheduler) takeBack(r *Request) {
	lost := &loss{requests: []*Request{r}, link: r.place.link, cause: link.CauseUnread}
	s.vacate(r)
	r.state, r.loss = losing, lost
	s.notices.add(notice{kind: loses, loss: lost})
}
