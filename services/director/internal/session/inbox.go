package session

import (
	"sync"

	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Events for the owner of a session.
type (
	granted struct {
		wish *pool.Waiter
		link *pool.Link
	}
	waiting struct {
		wish   *pool.Waiter
		reason string
	}
	workerLost struct {
		epoch uint64
		cause pool.Cause
	}
	begun      struct{ m *wirepb.Begin }
	firstToken struct{ epoch uint64 }
	ended      struct{ m *wirepb.End }
	failed     struct{ m *wirepb.Fail }
	refused    struct{ m *wirepb.Refused }
	full       struct{ epoch uint64 } // the journal took its last token
	clientGone struct{ err error }    // the client's stream broke
	relieved   struct{}               // a stalled client took something
	drained    struct{}               // all that was for the client is written
)

// inbox is the owner's queue. It is not bounded by itself: each attempt puts a handful of events there at most,
// whatever its worker sends, and attempts are bounded.
type inbox struct {
	ready chan struct{} // capacity 1

	mu     sync.Mutex
	events []any
}

func newInbox() inbox { return inbox{ready: make(chan struct{}, 1)} }

func (b *inbox) put(event any) {
	b.mu.Lock()
	b.events = append(b.events, event)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}
