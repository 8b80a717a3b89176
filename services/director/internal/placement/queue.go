package placement

import (
	"container/heap"
	"slices"

	"github.com/connswap/connswap/services/director/internal/routing"
)

// queues are the requests that wait, by what they need: where the first of a queue finds no worker, nobody behind it
// does. It is guarded by Placement.mu. There are few: engines, kinds, and workers to avoid.
type queues struct {
	holders holders
	all     []*queue // none is empty; in the order in which they began
	byNeed  map[routing.Need]*queue
}

// queue is the requests that wait with equal needs.
type queue struct {
	need       routing.Need
	groups     groups     // of what waits, by holder; none is empty
	length     int        // of all of them
	unnotified []*Request // who have not been told why they wait; those who wait no more among them
	blocked    bool       // no worker can take one, and none has changed for the better since that was found
	reason     routing.Reason
	reasonAt   uint64 // Placement.changes when reason was found
}

// add queues a request with those of equal needs.
func (s *queues) add(r *Request) {
	need := r.need()
	q := s.byNeed[need]
	if q == nil {
		q = &queue{need: need}
		s.byNeed[need] = q
		s.all = append(s.all, q)
	}
	s.holders.join(r)
	r.state, r.queue, r.notified = queued, q, false
	q.push(r)
	if q.unnotified = append(q.unnotified, r); len(q.unnotified) > 2*q.length {
		q.unnotified = slices.DeleteFunc(q.unnotified, func(r *Request) bool { return !r.waits(q) })
	}
}

// push adds a request to what its holder has waiting.
func (q *queue) push(r *Request) {
	q.length++
	if g := q.group(r.of); g != nil {
		heap.Push(&g.waiting, r)
		heap.Fix(&q.groups, g.index)
		return
	}
	g := &group{holder: r.of, queue: q}
	heap.Push(&g.waiting, r)
	r.of.groups = append(r.of.groups, g)
	heap.Push(&q.groups, g)
}

// group returns what a holder has waiting here, or nil. A holder waits in few queues.
func (q *queue) group(h *holder) *group {
	for _, g := range h.groups {
		if g.queue == q {
			return g
		}
	}
	return nil
}

// first returns the request that goes first.
func (q *queue) first() *Request { return q.groups[0].waiting[0] }

// pop takes out the first request of a queue, and the queue with its last one.
func (s *queues) pop(q *queue) *Request {
	r := q.first()
	s.remove(r)
	return r
}

// remove takes a request out that waits.
func (s *queues) remove(r *Request) {
	q, g := r.queue, r.queue.group(r.of)
	heap.Remove(&g.waiting, r.index)
	q.length--
	if len(g.waiting) > 0 {
		heap.Fix(&q.groups, g.index)
	} else {
		heap.Remove(&q.groups, g.index)
		r.of.groups = slices.DeleteFunc(r.of.groups, func(other *group) bool { return other == g })
	}
	r.queue = nil
	s.holders.leave(r)
	if q.length == 0 {
		delete(s.byNeed, q.need)
		s.all = slices.DeleteFunc(s.all, func(other *queue) bool { return other == q })
	}
}

// before returns that of two queues whose first one goes first. The other may be nil.
func (q *queue) before(other *queue) *queue {
	if other != nil && other.groups[0].compare(q.groups[0]) < 0 {
		return other
	}
	return q
}

// waiting is a heap of requests in the order in which they go.
type waiting []*Request

func (h waiting) Len() int           { return len(h) }
func (h waiting) Less(i, j int) bool { return h[i].compareWaiting(h[j]) < 0 }

func (h waiting) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *waiting) Push(x any) {
	r, _ := x.(*Request)
	r.index = len(*h)
	*h = append(*h, r)
}

func (h *waiting) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return r
}
