package session

import (
	"sync"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
)

// Events for the owner of a session, besides those of package attempt and of the log. A func() is one too: it is
// called.
type (
	granted struct {
		place *placement.Request
		link  *link.Link
	}
	waiting struct {
		place  *placement.Request
		reason string
	}
	lost struct {
		place *placement.Request
		link  *link.Link
		cause link.Cause
	}
	planned  struct{ *handover.Plan }
	rollback struct {
		of     *handover.Plan
		reason string
	}
	decided struct {
		confirm bool
		reason  string
		answer  func(error)
	}
	resumed struct {
		open Open
		ok   chan bool // capacity 1: whether the stream goes on
	}
)

// inbox is the owner's queue. It is not bounded by itself: each attempt puts a handful of events there at most,
// whatever its worker sends, and attempts are bounded. What operators ask for is bounded by their connections.
type inbox struct {
	ready chan struct{} // capacity 1

	mu     sync.Mutex
	events []any
	closed bool // the owner has gone: what operators still ask is answered by whoever asks
}

func newInbox() inbox { return inbox{ready: make(chan struct{}, 1)} }

// put queues an event, and reports whether the owner is still there to act on it. It never blocks.
func (b *inbox) put(event any) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.events = append(b.events, event)
	b.mu.Unlock()
	b.wake()
	return true
}

// wake has the owner look at what there is, also if that is nothing.
func (b *inbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// dequeue returns all that is queued, in the order in which it came.
func (b *inbox) dequeue() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

// close has put refuse everything from now on, and returns what is still queued.
func (b *inbox) close() []any {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.dequeue()
}
