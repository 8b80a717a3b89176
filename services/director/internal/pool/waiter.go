package pool

import (
	"cmp"
	"container/heap"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
)

// Placed is a session as the pool and its links see it.
//
// All methods are called by the goroutines of links. They never block, and take no lock but the session's own.
type Placed interface {
	// Granted says that a place was found for w.
	Granted(w *Waiter, l *link.Link)
	// Waiting says that no worker can take w now.
	Waiting(w *Waiter, reason string)
	// Lost says that the worker of the given epoch is gone. If that is the one that serves the session it fences the
	// session at once, and returns its wish for the next worker; otherwise nil.
	Lost(epoch uint64, cause link.Cause) *Waiter

	link.Sink
}

// Waiter is one session's wish for a worker. Make it with NewWaiter.
type Waiter struct {
	Session     Placed
	ID          uint64 // of the session; older sessions have lower ones
	Started     int64  // when the session began, in seconds: older ones go first,
	Priority    uint32 // of equally old ones those with the higher priority
	Epoch       uint64 // that the worker shall serve
	Kind        migration.Kind
	Fingerprint string // of the engine; empty if any will do
	Avoid       string // a worker not to take again; empty if any will do
	Want        string // the only worker that will do; empty if any will

	index   int // in the queue, or one of the below
	told    bool
	target  *target // that it counts against as a swap under way; nil if it does not
	granted *target // whose place it has; nil if it has none
}

// compare is negative if w goes before other.
func (w *Waiter) compare(other *Waiter) int {
	return cmp.Or(cmp.Compare(w.Started, other.Started), cmp.Compare(other.Priority, w.Priority), cmp.Compare(w.ID, other.ID))
}

// Values of Waiter.index outside the queue.
const (
	fresh = -iota - 1
	done
)

// NewWaiter returns w, not asked for yet.
func NewWaiter(w Waiter) *Waiter {
	w.index = fresh
	return &w
}

// queue is a heap of waiters in the order in which they go.
type queue []*Waiter

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].compare(q[j]) < 0 }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	w, _ := x.(*Waiter)
	w.index = len(*q)
	*q = append(*q, w)
}

func (q *queue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.index = done
	return w
}

func (q *queue) remove(w *Waiter) {
	if w.index >= 0 {
		heap.Remove(q, w.index)
	}
	w.index = done
}
