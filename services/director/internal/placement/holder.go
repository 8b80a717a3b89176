package placement

import (
	"cmp"
	"container/heap"
)

// holder is somebody whose streams wait or have places: of those who wait, who has fewest places goes first, so that
// nobody who has many keeps the others waiting. It is guarded by Placement.mu.
type holder struct {
	name   string
	places int
	uses   int // requests that wait or have a place
	groups []*group
}

// group is what one holder has waiting in a queue: the requests, in the order in which they go.
type group struct {
	holder  *holder
	queue   *queue
	index   int // in the heap of the queue
	waiting waiting
}

// compare is negative if the first request of g goes before that of other.
func (g *group) compare(other *group) int {
	mine, theirs := g.waiting[0], other.waiting[0]
	return cmp.Or(compareBool(mine.unread, theirs.unread), mine.urgent(theirs), cmp.Compare(g.holder.places, other.holder.places),
		mine.compare(theirs))
}

// groups is a heap of the holders that wait in a queue.
type groups []*group

func (h groups) Len() int           { return len(h) }
func (h groups) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }

func (h groups) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *groups) Push(x any) {
	g, _ := x.(*group)
	g.index = len(*h)
	*h = append(*h, g)
}

func (h *groups) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return g
}

// holders are those who have requests that wait or have places, by name.
type holders map[string]*holder

// join counts a request with its holder.
func (all holders) join(r *Request) {
	h := all[r.Holder]
	if h == nil {
		h = &holder{name: r.Holder}
		all[r.Holder] = h
	}
	h.uses++
	r.of = h
}

// leave ends join.
func (all holders) leave(r *Request) {
	if r.of.uses--; r.of.uses == 0 {
		delete(all, r.of.name)
	}
	r.of = nil
}

// count adds to a holder's places, which changes its turn wherever it waits.
func (h *holder) count(n int) {
	h.places += n
	for _, g := range h.groups {
		heap.Fix(&g.queue.groups, g.index)
	}
}
