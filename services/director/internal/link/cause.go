package link

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// Cause says why a worker was lost for its sessions.
type Cause string

// Causes, by the signal that was first.
const (
	CauseReported Cause = "worker reported failure"
	CauseClosed   Cause = "worker closed the link"
	CauseTether   Cause = "worker process died (tether closed)"
	CauseRefused  Cause = "worker process died (connection refused)"
	CauseIdle     Cause = "worker unreachable (no packets)"
	CauseProgress Cause = "worker hangs (no progress)"
	CauseDelivery Cause = "what is sent does not arrive (path or peer takes no data)"
	CauseBacklog  Cause = "worker takes too little (queue full)"
	CauseStuck    Cause = "stream stuck (no token)"
	CauseEngine   Cause = "engine failed"
	CauseProtocol Cause = "worker broke the protocol"
	CauseDiverged Cause = "worker's text diverged"
	CauseDiffers  Cause = "engine would make another text"
	CauseReplaced Cause = "a newer instance of the worker registered"
	CauseBroken   Cause = "link broke"
	CauseStalled  Cause = "director was stopped or starved itself"
	CauseShutdown Cause = "director shuts down"
	CauseAttach   Cause = "worker did not take the stream in time"
	CauseDeclined Cause = "worker declined the stream"
	CauseUnread   Cause = "client reads nothing, and others wait"
)

// Deadly reports whether a request that is served when this happens may be what killed the worker. A worker
// that says it failed, or leaves, was not killed by a request.
func (c Cause) Deadly() bool {
	switch c {
	case CauseTether, CauseRefused, CauseIdle, CauseProgress, CauseEngine, CauseProtocol, CauseDiverged, CauseBroken:
		return true
	case CauseReported, CauseClosed, CauseDelivery, CauseBacklog, CauseStalled, CauseAttach, CauseStuck, CauseReplaced, CauseShutdown, CauseDeclined,
		CauseUnread, CauseDiffers:
		return false
	}
	return true
}

// lostError carries a cause through contexts.
type lostError struct {
	cause Cause
	err   error
}

// Lost returns an error that ends a link with this cause. err says more, and may be nil.
func Lost(cause Cause, err error) error { return &lostError{cause: cause, err: err} }

func (e *lostError) Error() string {
	if e.err == nil {
		return string(e.cause)
	}
	return fmt.Sprintf("%s: %v", e.cause, e.err)
}

func (e *lostError) Unwrap() error { return e.err }

// CauseOf finds the cause in what ended a link.
func CauseOf(err error) Cause {
	var lost *lostError
	if errors.As(err, &lost) {
		return lost.cause
	}
	return CauseBroken
}

// ownFault replaces a loss that follows from a stall of this process by one that says so: both ends' timers ran out
// while it was stopped, and the workers closed their tethers.
func ownFault(err error, stall time.Duration) error {
	switch CauseOf(err) { //nolint:exhaustive // all others are what the worker said, or what was done here
	case CauseTether, CauseClosed, CauseIdle, CauseBroken:
		if stall >= quicnet.LinkIdle {
			return Lost(CauseStalled, fmt.Errorf("for %v; then: %w", stall.Round(time.Millisecond), err))
		}
	}
	return err
}

// classify gives what ended one of the link's streams its cause, unless it has one.
func classify(err error) error {
	var already *lostError
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	switch {
	case err == nil || errors.As(err, &already):
		return err
	case errors.Is(err, wire.ErrBacklog):
		return Lost(CauseBacklog, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Lost(CauseRefused, err)
	case errors.As(err, &app) && app.Remote:
		return Lost(CauseClosed, err)
	case errors.As(err, &idle):
		return Lost(CauseIdle, err)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrUnexpected):
		return Lost(CauseProtocol, err)
	}
	return Lost(CauseBroken, err)
}
