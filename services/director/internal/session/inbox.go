package session

import (
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Events for the owner of a session.
type (
	granted struct {
		wish *pool.Waiter
		link *link.Link
	}
	waiting struct {
		wish   *pool.Waiter
		reason string
	}
	workerLost struct {
		epoch uint64
		cause link.Cause
	}
	targetLost struct { // of a planned swap, before its cut
		epoch uint64
		cause link.Cause
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

	planned  struct{ *Plan }
	rollback struct {
		of     *Plan
		reason string
	}
	decided struct {
		confirm bool
		reason  string
		answer  func(error)
	}
	prepared struct{}               // flow.prepared is new
	captured struct{}               // flow.captured is new
	crossed  struct{ at time.Time } // the token came that the cut waits for
	held     struct {               // a checkpoint is where it should be, or not
		source   uint64 // epoch of the worker that it is from
		request  uint64 // its number; 0 if the peer that keeps it has answered
		sequence uint64
		err      error
	}
	turnCome struct{ turn *Turn } // to make a checkpoint
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

// put reports whether the owner is still there to take it.
func (b *inbox) put(event any) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.events = append(b.events, event)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

// close makes the owner the last to take anything, and returns it.
func (b *inbox) close() []any {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.take()
}
