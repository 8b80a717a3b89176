package placement

import (
	"cmp"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
)

// Session is the owner of a stream, as placement sees it. Its methods are called in the order in which things happened,
// one at a time of all sessions, on whichever goroutine happens to deliver: with none of placement's locks held, but
// maybe within another session's call of Queue or Release. So they never block, and whoever calls placement holds no
// lock that they take.
type Session interface {
	// Granted says that r has a place at l. Only with this the epoch of the attempt is drawn, by the stream's owner.
	Granted(r *Request, l *link.Link)
	// Waiting says that no worker can take r now, and why. It is called once for each time that r is queued.
	Waiting(r *Request, reason string)
	// Lost says that r has lost its place, since the worker is gone or reported failure. The session fences itself at
	// once. If it returns true, r is queued again as it is then: this is the time to change r.Kind and r.Need.
	Lost(r *Request, l *link.Link, cause link.Cause) (again bool)
}

// Request is one session's request for a place at a worker, and the place that it was granted: there is no other record
// of either. The fields that begin with a capital are the session's: it sets them before Queue, and changes them while
// the request neither waits nor has a place, or in Lost. The others are placement's.
type Request struct {
	Session  Session
	ID       uint64 // of the session; older sessions have lower ones
	Started  int64  // when the session began, in seconds: older ones go first,
	Priority uint32 // of equally old ones those with the higher priority; of those that are new it counts before their age
	Holder   string // who the stream is of: those of who has fewest places go first
	Kind     migration.Kind
	Need     routing.Need
	BadTries int // attempts in a row that made no progress; placement counts, the session takes it over into its next request

	state    state
	unread   bool    // its client reads nothing: it goes last, and others get its place
	queue    *queue  // in which it waits
	index    int     // where in the heap of its holder there
	of       *holder // while it waits or has a place
	notified bool    // and whether its session knows
	place    *worker
	model    *routing.Model // of place
	loss     *loss          // with which it lost its place
	underWay bool           // it counts as a handover under way to its place,
	counts   migration.Kind // of this kind
	since    uint64         // successes at its place when it was granted
	onTrial  bool           // the attempt at its place has neither made progress nor failed
}

// state is where a request stands.
type state uint8

const (
	idle    state = iota // not asked for, or taken back
	queued               // waits
	granted              // has a place
	losing               // has lost its place; its session is being notified
)

// waits reports whether r waits in q, and its session does not know.
func (r *Request) waits(q *queue) bool { return r.queue == q && !r.notified }

// need returns what routing has to know.
func (r *Request) need() routing.Need {
	n := r.Need
	n.Kind = r.Kind
	n.Careful = r.BadTries > 0 || r.Kind == migration.Planned // a stream that is served well where it is takes no risk
	return n
}

// compare is negative if r goes before another request of the same holder.
func (r *Request) compare(other *Request) int {
	return cmp.Or(compareBool(r.unread, other.unread), cmp.Compare(r.Started, other.Started),
		cmp.Compare(other.Priority, r.Priority), cmp.Compare(r.ID, other.ID))
}

// compareWaiting is compare where both wait.
func (r *Request) compareWaiting(other *Request) int {
	return cmp.Or(compareBool(r.unread, other.unread), r.urgent(other), r.compare(other))
}

// urgent compares the priorities of new streams: none of them has begun, so that nobody is kept waiting within a text.
func (r *Request) urgent(other *Request) int {
	if r.Kind != migration.Placement || other.Kind != migration.Placement {
		return 0
	}
	return cmp.Compare(other.Priority, r.Priority)
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
