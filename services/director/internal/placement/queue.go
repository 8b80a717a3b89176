package placement

import (
	"container/heap"
	"slices"

	"github.com/connswap/connswap/services/director/internal/routing"
)

// queues are the requests that wait, by what they need: where the first of a queue finds no worker, nobody behind it
// does. It is guarded by Placement.mu. There are few: engines, kinds, and workers to avoid.
type queues struct {
	all    []*queue // none is empty; in the order in which they began
	byNeed map[routing.Need]*queue
}

// queue is the requests that wait with equal needs.
type queue struct {
	need       routing.Need
	waiting    waiting
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
	r.state, r.queue, r.notified = queued, q, false
	heap.Push(&q.waiting, r)
	if q.unnotified = append(q.unnotified, r); len(q.unnotified) > 2*len(q.waiting) {
		q.unnotified = slices.DeleteFunc(q.unnotified, func(r *Request) bool { return !r.waits(q) })
	}
}

// pop takes out the first request of a queue, and the queue with its last one.
func (s *queues) pop(q *queue) *Request {
	r := q.waiting[0]
	s.remove(r)
	return r
}

// remove takes a request out that waits.
func (s *queues) remove(r *Request) {
	q := r.queue
	heap.Remove(&q.waiting, r.index)
	r.queue = nil
	if len(q.waiting) == 0 {
		delete(s.byNeed, q.need)
		s.all = slices.DeleteFunc(s.all, func(other *queue) bool { return other == q })
	}
}

// before returns that of two queues whose first one goes first. The other may be nil.
func (q *queue) before(other *queue) *queue {
	if other != nil && other.waiting[0].compare(q.waiting[0]) < 0 {
		return other
	}
	return q
}

// waiting is a heap of requests in the order in which they go.
type waiting []*Request

func (h waiting) Len() int           { return len(h) }
func (h waiting) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }

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
