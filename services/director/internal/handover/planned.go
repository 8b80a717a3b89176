package handover

import (
	"time"

	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// This file is what moves a planned handover on while its source serves, and how long each state of a handover may
// last. What is sent to the target meanwhile is standby's part.

const (
	// TokenPause is how long a handover waits that found the limit of migration tokens for its target reached.
	TokenPause = 50 * time.Millisecond
	// The cut waits for a token to arrive for this many intervals, within these bounds.
	cutIntervals = 2
	cutWaitMin   = 40 * time.Millisecond
	cutWaitMax   = time.Second
)

// follow has the target follow, outside of a step.
func (h *Handover) follow() {
	if event, ok := h.standby.follow(); ok {
		h.advance(event)
	}
}

// Prepared acts on the target's word up to which token it has the stream. A word from beyond the log is not believed.
func (h *Handover) Prepared(m *wirepb.Prepared) {
	if m.GetSequence() > h.log().Len() {
		return
	}
	h.standby.prepared = m.GetSequence()
	switch h.State() { //nolint:exhaustive // in all others nothing waits for it
	case migration.Preparing:
		h.advance(migration.Opened)
	case migration.TransferringState:
		h.standby.asked = false
		h.follow()
	}
}

// Captured acts on the source's answer to a request for the engine's state. It reports false if the request was not
// this handover's: then it was one for a checkpoint.
func (h *Handover) Captured(m *wirepb.Captured) bool {
	switch {
	case h.standby.capture == 0 || h.standby.capture != m.GetCapture():
		return false
	case h.State() != migration.CapturingState:
	case m.GetCode() != "":
		h.End(migration.Cancelled, m.GetCode()+": "+m.GetMessage())
	default:
		h.standby.needs = m.GetSequence()
		h.advance(migration.Captured)
	}
	return true
}

// Failed acts on the target's word that it does not take the stream. The source serves on.
func (h *Handover) Failed(code wire.Code, message string) {
	event := migration.TargetLost
	switch code { //nolint:exhaustive // all others say that the target is of no use
	case wire.CodeTokenExpired:
		event = migration.Expired
	case wire.CodeDiverged:
		event = migration.Mismatch
	}
	h.End(event, string(code)+": "+message)
}

// CutOver is the point of no return: the source is fenced after the log's last token, and the target owns what follows.
// Owner.Cut does both in one step, so that no token of either falls between. If the target or the source has been lost,
// it does nothing: the event that says so is on its way.
func (h *Handover) CutOver() {
	if h.State() != migration.Pivoting {
		return
	}
	credit, cut, ok := h.deps.Owner.Cut(h.source, h.Target)
	if !ok {
		return
	}
	h.Cut, h.cut = cut, true
	h.standby.pivot(credit)
	h.advance(migration.Pivoted)
}

// Confirm is an operator's word that the handover may go on. The error says why it does not wait for that.
func (h *Handover) Confirm() error {
	if h.State() != migration.WaitingConfirmation {
		return wire.Errorf(wire.CodeConflict, "the swap does not wait for confirmation, it is %s", h.State())
	}
	h.advance(migration.Confirmed)
	return nil
}

// Check does what is due now, and ends the present state when its time is up, as long as the source serves. The
// stream's owner calls it now and then. States of other handovers the owner ends itself: there it has to give the
// stream another worker.
func (h *Handover) Check() {
	s, state := &h.standby, h.State()
	switch {
	case s.late && h.deps.Clock.Since(h.entered) >= TokenPause && state == migration.Preparing:
		s.open()
	case s.late && h.deps.Clock.Since(h.entered) >= TokenPause:
		s.fetch()
	case state == migration.TransferringState && !s.asked && !s.late:
		h.follow()
	}
	if !h.SourceServes() || h.Remaining() > 0 {
		return
	}
	switch state := h.State(); state {
	case migration.Pivoting: // no token came: the cut does not need one
		h.CutOver()
	case migration.TransferringState:
		if s.asked || h.log().Len() < s.needs {
			h.End(migration.TimedOut, timeouts[state])
			return
		}
		h.follow()
	default:
		h.End(migration.TimedOut, timeouts[state])
	}
}

// timeouts says what did not come in time.
var timeouts = map[migration.State]string{
	migration.Initiating:          "no worker had room in time",
	migration.WaitingConfirmation: "no operator confirmed it in time",
	migration.Preparing:           "the target did not open the stream in time",
	migration.CapturingState:      "the source did not capture the state in time",
	migration.TransferringState:   "the target did not get the state in time",
}

// remainingStandby returns how long a state may last while the source serves.
func (h *Handover) remainingStandby(state migration.State) time.Duration {
	switch state { //nolint:exhaustive // all others are over at once
	case migration.Initiating:
		return h.cfg.WorkerWait
	case migration.WaitingConfirmation:
		return h.cfg.ConfirmTimeout
	case migration.CapturingState, migration.TransferringState:
		if h.Target.Stateful() {
			return h.cfg.TransferTimeout
		}
	case migration.Pivoting:
		return min(max(cutIntervals*h.log().Interval(), cutWaitMin), cutWaitMax)
	}
	return h.cfg.AttachTimeout
}

// Remaining returns how much stall-proof time is left for the present state.
func (h *Handover) Remaining() time.Duration {
	since := h.deps.Clock.Since(h.entered)
	switch state := h.State(); {
	case h.recovery.begun && h.opens() && since < recoveryMost:
		return h.recovery.remaining(h.deps.Clock, h.Target.Link.Lateness())
	case h.SourceServes():
		return h.remainingStandby(state) - since
	case state == migration.Initiating:
		return h.cfg.WorkerWait - h.deps.Clock.Since(h.unassigned)
	case state == migration.Verifying:
		return h.cfg.FirstTokenTimeout - since
	case h.Target.Stateful():
		return h.cfg.TransferTimeout - since // it gets the state, or computes everything again
	}
	return h.cfg.AttachTimeout - since
}
