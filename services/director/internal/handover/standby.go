package handover

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// This file is what a planned handover does with its target while the source still serves: bring it to where the stream is, and hand over.

const (
	// nearEnough is how many tokens a standby may lack: they travel with the pivot.
	nearEnough = 16
	// feedMost bounds the rounds for a standby that does not catch up; what it lacks then travels with the pivot too.
	feedMost = 8
	// The cut waits for a token to arrive for this many intervals, within these bounds.
	cutIntervals = 2
	cutWaitMin   = 40 * time.Millisecond
	cutWaitMax   = time.Second
	// TokenPause is how long a handover waits that found the limit of migration tokens for its target reached.
	TokenPause = 50 * time.Millisecond
)

type log = stream.Log

// standby is how far the target of a planned handover is.
type standby struct {
	prepared uint64 // it has the tokens up to this one
	needs    uint64 // it cannot take over before this token: its engine's state is after it
	rounds   int    // of feeding
	capture  uint64 // number of the request for the engine's state; 0 if there was none
	asked    bool   // for what the present state waits
	late     bool   // that could not be asked yet: too many migration tokens for this target
}

// openStandby opens the attempt on the target, which reserves a place for it.
func (h *Handover) openStandby() {
	if token := h.allow(h.target, wirepb.Purpose_PURPOSE_MIGRATION); token != nil {
		h.target.Standby(token.GetSecret())
	}
}

// fetch tells the target where the engine's state is.
func (h *Handover) fetch() {
	if token := h.allow(h.source, wirepb.Purpose_PURPOSE_STATE_TRANSFER); token != nil {
		h.target.Link.Send(&wirepb.Fetch{
			Session: h.target.ID, Epoch: h.target.Epoch, Addr: h.source.Link.MgmtAddr(), Token: token, Sequence: h.standby.needs,
			TimeoutMs: uint64(h.cfg.TransferTimeout.Milliseconds()),
		})
	}
}

// allow makes the migration token that the target is to show, and gives it to the holder. Without one the handover has to wait.
func (h *Handover) allow(holder *attempt.Attempt, purpose wirepb.Purpose) *wirepb.Token {
	token, err := h.deps.Stream.Allow(holder.Link, purpose, h.swap.From, h.swap.To, h.source.Epoch, h.target.Epoch)
	if err != nil {
		h.deps.Log.Debug("planned swap waits for a token", zap.Error(err))
	}
	h.standby.asked, h.standby.late = err == nil, err != nil
	return token
}

// follow brings the target the tokens that came meanwhile, or finds that it has caught up.
func (h *Handover) follow() (event migration.Event, ok bool) {
	s, length := &h.standby, h.log().Len()
	near := length <= s.prepared+nearEnough || s.rounds >= feedMost
	switch {
	case near && length >= s.needs:
		return migration.Accepted, true
	case s.asked || length == s.prepared: // an answer is on its way, or there is nothing new
	default:
		s.rounds++
		s.asked = true
		h.target.Feed(s.prepared)
	}
	return 0, false
}

// followed does the same outside of a step.
func (h *Handover) followed() {
	if event, ok := h.follow(); ok {
		h.take(event)
	}
}

// Prepared takes the target's word how far it is.
func (h *Handover) Prepared(m *wirepb.Prepared) {
	if m.GetSequence() > h.log().Len() {
		return
	}
	h.standby.prepared = m.GetSequence()
	switch h.State() { //nolint:exhaustive // in all others nothing waits for it
	case migration.Preparing:
		h.take(migration.Opened)
	case migration.TransferringState:
		h.standby.asked = false
		h.followed()
	}
}

// Captured takes the source's answer to a request for the engine's state. It reports false if that was another one's.
func (h *Handover) Captured(m *wirepb.Captured) bool {
	switch {
	case h.standby.capture == 0 || h.standby.capture != m.GetCapture():
		return false
	case h.State() != migration.CapturingState:
	case m.GetCode() != "":
		h.End(migration.Cancelled, m.GetCode()+": "+m.GetMessage())
	default:
		h.standby.needs = m.GetSequence()
		h.take(migration.Captured)
	}
	return true
}

// Failed takes the target's word that it does not want the stream.
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

// Cut is the point of no return: the source is fenced after the log's last token, and the target owns what follows.
func (h *Handover) Cut() {
	if h.State() != migration.Pivoting {
		return
	}
	credit, cut, ok := h.deps.Owner.Cut(h.source, h.target)
	if !ok {
		return
	}
	h.swap.Cut, h.cut = cut, true
	h.target.Pivot(h.standby.prepared, credit)
	h.take(migration.Pivoted)
}

// Confirm is an operator's word that the handover may go on. The error says why it does not wait for that.
func (h *Handover) Confirm() error {
	if h.State() != migration.WaitingConfirmation {
		return wire.Errorf(wire.CodeConflict, "the swap does not wait for confirmation, it is %s", h.State())
	}
	h.take(migration.Confirmed)
	return nil
}

// Check does what is due now, and ends the present state when its time is up, as long as the source serves.
func (h *Handover) Check() {
	s, state := &h.standby, h.State()
	switch {
	case s.late && h.deps.Clock.Since(h.entered) >= TokenPause && state == migration.Preparing:
		h.openStandby()
	case s.late && h.deps.Clock.Since(h.entered) >= TokenPause:
		h.fetch()
	case state == migration.TransferringState && !s.asked && !s.late:
		h.followed()
	}
	if !h.SourceServes() || h.Remaining() > 0 {
		return
	}
	switch state := h.State(); state {
	case migration.Pivoting: // no token came: the cut does not need one
		h.Cut()
	case migration.TransferringState:
		if s.asked || h.log().Len() < s.needs {
			h.End(migration.TimedOut, timeouts[state])
			return
		}
		h.followed()
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
		if h.target.Link.Stateful() {
			return h.cfg.TransferTimeout
		}
	case migration.Pivoting:
		return min(max(cutIntervals*h.log().Interval(), cutWaitMin), cutWaitMax)
	}
	return h.cfg.AttachTimeout
}
