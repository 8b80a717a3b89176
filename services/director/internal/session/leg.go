package session

import (
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire"
)

// Leg carries a stream to its client, from the stream's log. It tells the session ClientLeft, ClientRead and Delivered.
type Leg interface {
	attempt.Leg
	// Stalled returns for how long the client has taken nothing of what waits for it, in stall-proof time.
	Stalled() time.Duration
	// Close ends the leg: in order if err is nil, since all has been taken; else the client's stream breaks off.
	// Nothing of the leg runs any more when it returns.
	Close(err error)
}

// Open returns a new leg of a stream. What it tells goes to the function.
type Open func(log *stream.Log, tell func(event any)) Leg

// What a leg tells.
type (
	// ClientLeft says that nothing reaches the client any more, because of what ended its stream.
	ClientLeft struct {
		Cancelled bool // the client does not want the stream any more; else it could not be reached
		Err       error
	}
	// ClientRead says that a client which had let its stream wait has read on.
	ClientRead struct{}
	// Delivered says that the client's connection has taken the last frame.
	Delivered struct{}
)

// Why legs are closed.
var (
	// ErrClientStalled closes the leg to a client that read nothing for too long: an error frame could not be written.
	ErrClientStalled = wire.Errorf(wire.CodeClientStall, "client read nothing for too long")
	// ErrTaken closes the leg of a stream that its client has taken up elsewhere.
	ErrTaken = wire.Errorf(wire.CodeResumeTaken, "the stream goes on elsewhere")
	// errClientGone closes the leg to a client that nothing reaches any more.
	errClientGone = wire.Errorf(wire.CodeCancelled, "the client has gone")
)

// legs is what carries the stream to its client: one leg at a time, or none while the client is away. The owner of the
// session changes it; anybody may push, and ask for how long the client has taken nothing.
type legs struct {
	clock *clock.StallProof
	now   atomic.Pointer[carriage]
}

// carriage is one period of a stream's life: with a leg, or without.
type carriage struct {
	leg   Leg           // nil while the client is away
	since time.Duration // in stall-proof time
}

// fromLeg is what a leg tells the session. What one tells that is not the present one any more means nothing.
type fromLeg struct {
	*carriage
	event any
}

var _ attempt.Leg = (*legs)(nil)

// Push hands what is new to the client, if it is there.
func (l *legs) Push() {
	if leg := l.now.Load().leg; leg != nil {
		leg.Push()
	}
}

// Stalled returns for how long the client has taken nothing of what waits for it, or has been away.
func (l *legs) Stalled() time.Duration {
	now := l.now.Load()
	if now.leg != nil {
		return now.leg.Stalled()
	}
	return l.clock.Since(now.since)
}

// away reports whether there is no leg.
func (l *legs) away() bool { return l.now.Load().leg == nil }

// open has another leg carry the stream; that which did before is closed with ErrTaken. What the leg tells goes to tell.
func (l *legs) open(log *stream.Log, open Open, tell func(event any)) {
	l.close(ErrTaken)
	next := &carriage{}
	next.leg = open(log, func(event any) { tell(fromLeg{next, event}) })
	l.now.Store(next)
}

// close ends the present leg, if there is one: see Leg.Close.
func (l *legs) close(err error) {
	last := l.now.Swap(&carriage{since: l.clock.Now()})
	if last != nil && last.leg != nil {
		last.leg.Close(err)
	}
}
