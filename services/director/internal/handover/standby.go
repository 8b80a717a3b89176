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

// This file is what a planned handover does with its target while the source still serves: bring it to where the stream
// is, and hand over.

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

// standby is the target of a planned handover while the source serves: what it has, and what it was asked.
type standby struct {
	source, target *attempt.Attempt
	timeout        time.Duration // of the transfer of an engine's state
	log            *zap.Logger

	prepared uint64 // it has the tokens up to this one
	needs    uint64 // it cannot take over before this token: its engine's state is after it
	rounds   int    // of feeding
	capture  uint64 // number of the request for the engine's state; 0 if there was none
	asked    bool   // for what the present state waits
	late     bool   // that could not be asked yet: too many migration tokens for this target
}

// open has the target open the attempt, which reserves a place for it.
func (s *standby) open() {
	if token := s.allow(s.target, wirepb.Purpose_PURPOSE_MIGRATION); token != nil {
		s.target.Standby(token.GetSecret())
	}
}

// fetch tells the target where the engine's state is.
func (s *standby) fetch() {
	if token := s.allow(s.source, wirepb.Purpose_PURPOSE_STATE_TRANSFER); token != nil {
		s.target.Link.Send(&wirepb.Fetch{
			Session: s.target.ID, Epoch: s.target.Epoch, Addr: s.source.Link.MgmtAddr(), Token: token,
			Sequence: s.needs, TimeoutMs: uint64(s.timeout.Milliseconds()),
		})
	}
}

// allow makes the migration token that the target is to show, and gives it to the holder. Without one the handover has
// to wait.
func (s *standby) allow(holder *attempt.Attempt, purpose wirepb.Purpose) *wirepb.Token {
	token, err := s.target.Allow(holder.Link, purpose,
		s.source.Link.Worker(), s.target.Link.Worker(), s.source.Epoch, s.target.Epoch)
	if err != nil {
		s.log.Debug("planned swap waits for a token", zap.Error(err))
	}
	s.asked, s.late = err == nil, err != nil
	return token
}

// follow brings the target the tokens that came meanwhile, or finds that it has caught up.
func (s *standby) follow() (event migration.Event, ok bool) {
	length := s.target.Log.Len()
	near := length <= s.prepared+nearEnough || s.rounds >= feedMost
	switch {
	case near && length >= s.needs:
		return migration.Accepted, true
	case s.asked || length == s.prepared: // an answer is on its way, or there is nothing new
	default:
		s.rounds++
		s.asked = true
		s.target.Feed(s.prepared)
	}
	return 0, false
}

// follow has the target follow, outside of a step.
func (h *Handover) follow() {
	if event, ok := h.standby.follow(); ok {
		h.advance(event)
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
		h.advance(migration.Opened)
	case migration.TransferringState:
		h.standby.asked = false
		h.follow()
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
		h.advance(migration.Captured)
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

// CutOver is the point of no return: the source is fenced after the log's last token, and the target owns what follows.
func (h *Handover) CutOver() {
	if h.State() != migration.Pivoting {
		return
	}
	credit, cut, ok := h.deps.Owner.Cut(h.source, h.Target)
	if !ok {
		return
	}
	h.Cut, h.cut = cut, true
	h.Target.Pivot(h.standby.prepared, credit)
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

// Check does what is due now, and ends the present state when its time is up, as long as the source serves.
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
		if h.Target.Link.Stateful() {
			return h.cfg.TransferTimeout
		}
	case migration.Pivoting:
		return min(max(cutIntervals*h.log().Interval(), cutWaitMin), cutWaitMax)
	}
	return h.cfg.AttachTimeout
}
