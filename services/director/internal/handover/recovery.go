package handover

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/shared/migration"
)

const (
	// silenceLeast is the least time that a target may be silent which has said how far its engine is.
	silenceLeast = 500 * time.Millisecond
	// silenceFactor is how many times as long as usual it may be.
	silenceFactor = 4
	// recoveryMost bounds how long an engine may take in all, however steadily it gets on.
	recoveryMost = time.Hour
)

// recovery is how a target gets to where the stream is, as it says itself: so long as it gets on, it has time. All times
// are stall-proof. The estimate of its rhythm is that of package stream.
type recovery struct {
	at, of    uint64
	begun     bool
	last      time.Duration // when it got on
	mean, dev time.Duration // between two times
}

// progress takes note of how far the target is, and reports whether it got on: also where it counts towards something else now.
func (r *recovery) progress(at, of uint64, now time.Duration) bool {
	if r.begun && at <= r.at && of == r.of {
		return false
	}
	if r.begun {
		interval := now - r.last
		if r.mean == 0 {
			r.mean, r.dev = interval, interval/2
		} else {
			r.dev += (max(interval-r.mean, r.mean-interval) - r.dev) / 4
			r.mean += (interval - r.mean) / 8
		}
	}
	r.begun, r.at, r.of, r.last = true, at, of, now
	return true
}

// remaining returns how much longer the target may be silent; it may be lateness late in any case.
func (r *recovery) remaining(c *clock.StallProof, lateness time.Duration) time.Duration {
	return max(silenceLeast, silenceFactor*(r.mean+r.dev), lateness) - c.Since(r.last)
}

// Progressing takes the target's word how far its engine is, and reports whether it has got on.
func (h *Handover) Progressing(at, of uint64) bool {
	return h.opens() && h.recovery.progress(at, of, h.deps.Clock.Now())
}

// GotOn reports whether the target, by its own word, is on its way to where the stream is: it has taken the stream.
func (h *Handover) GotOn() bool { return h.recovery.begun && h.opens() }

// opens reports whether the target's engine may be on its way to where the stream is.
func (h *Handover) opens() bool {
	if h.Target == nil {
		return false
	}
	switch h.State() { //nolint:exhaustive // in all others it is there, or not asked yet
	case migration.Preparing, migration.TransferringState:
		return true
	}
	return false
}
