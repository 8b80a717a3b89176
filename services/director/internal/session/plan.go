package session

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// This file is what may be asked of a session from outside.

const hasEnded = "the stream has ended"

// Initiate asks for a planned handover. What it returns gives that up, and no other one, if its cut has not been made.
// Both may be called from any goroutine.
func (s *Session) Initiate(p handover.Plan) (rollBack func(reason string)) {
	if !s.inbox.put(planned{&p}) {
		s.decline(&p, hasEnded)
	}
	return func(reason string) { s.inbox.put(rollback{&p, reason}) }
}

// Decide is an operator's word on a handover that waits for it: confirm it, or veto it. The answer says why that cannot
// be done, or is nil. It may be called from any goroutine; answer must not block.
func (s *Session) Decide(confirm bool, reason string, answer func(error)) {
	if !s.inbox.put(decided{confirm, reason, answer}) {
		answer(wire.Errorf(wire.CodeConflict, hasEnded))
	}
}

// plan starts a planned handover, or says why not now.
func (s *Session) plan(p *handover.Plan) {
	if reason := s.busy(p); reason != "" {
		s.decline(p, reason)
		return
	}
	s.assignment.plan(p)
}

// busy says why the stream cannot be moved now.
func (s *Session) busy(p *handover.Plan) string {
	switch {
	case s.over:
		return hasEnded
	case s.assignment.handover != nil:
		return "the stream is being moved already"
	case s.assignment.serving.Link.Worker() == p.To:
		return "the stream is on that worker already"
	}
	return ""
}

// decline answers a plan that is not begun: its record stays in Idle. It may be called from any goroutine.
func (s *Session) decline(p *handover.Plan, reason string) {
	swap := migration.NewSwap(migration.Planned, s.announced(), p.Cause, time.Now())
	swap.To, swap.Reason = p.To, reason
	r := swap.Record(time.Now())
	r.ConnectionID, r.StreamID = s.who.ConnectionID, s.who.StreamID
	p.Done(r)
}

// decide confirms or vetoes the planned handover.
func (s *Session) decide(e decided) {
	h := s.assignment.handover
	switch {
	case s.over:
		e.answer(wire.Errorf(wire.CodeConflict, hasEnded))
	case h == nil || h.Kind != migration.Planned:
		e.answer(wire.Errorf(wire.CodeNotFound, "no planned swap of that stream is under way"))
	case !h.SourceServes():
		e.answer(wire.Errorf(wire.CodeConflict, "too late: the cut has been made"))
	case e.confirm:
		e.answer(h.Confirm())
	default:
		h.End(migration.Vetoed, e.reason)
		e.answer(nil)
	}
}
