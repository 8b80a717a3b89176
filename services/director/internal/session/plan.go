package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Plan is the wish to move a session while its worker still serves it.
type Plan struct {
	To      string // label of the worker to move to; empty for any other than the present one
	Cause   string // why, for people: drain, rebalance, operator …
	Confirm bool   // an operator has to confirm it
	// Arrived is called at most once, before Done, when the target has got all that it needs before the cut; nil for nobody.
	Arrived func()
	// Done is called once, by the session's goroutine, when the swap is over, however it ended. Neither may block.
	Done func(migration.Record)
}

// plan is a planned swap up to its cut: the source still serves the session. From the cut on it is a swap like any
// other, in Session.swap. It is owned by Run.
type plan struct {
	*Plan
	swap     *migration.Swap
	wish     *pool.Waiter
	link     *pool.Link    // of the target; nil until granted
	entered  time.Duration // lived time at which the swap entered its state
	prepared uint64        // the target has the tokens up to this one
	needs    uint64        // the target cannot take over before this token: its engine's state is after it
	rounds   int           // of feeding
	capture  uint64        // number of the request for the engine's state; 0 if there was none
	late     bool          // a token could not be made yet: too many for this target
	sent     bool          // what the state waits for is asked for
}

// Initiate asks for a planned swap. What it returns gives that up, and no other one, if its cut has not been made. Both
// may be called from any goroutine.
func (s *Session) Initiate(p Plan) (rollBack func(reason string)) {
	if !s.inbox.put(planned{&p}) {
		s.decline(p, hasEnded)
	}
	return func(reason string) { s.inbox.put(rollback{&p, reason}) }
}

// Decide is an operator's word on a swap that waits for it: confirm it, or veto it. The answer says why that cannot be
// done, or is nil. It may be called from any goroutine; answer must not block.
func (s *Session) Decide(confirm bool, reason string, answer func(error)) {
	if !s.inbox.put(decided{confirm, reason, answer}) {
		answer(wire.Errorf(wire.CodeConflict, hasEnded))
	}
}

const hasEnded = "the stream has ended"

// begin starts a planned swap, or says why not now.
func (s *Session) begin(p *Plan) {
	if reason := s.busy(p); reason != "" {
		s.decline(*p, reason)
		return
	}
	s.withdrawCheckpoint()
	s.mu.Lock()
	f := &s.flow
	f.highest++
	wish := s.newWish(migration.Planned, f.highest)
	wish.Avoid, wish.Want = f.worker, p.To
	f.plan = wish
	from := f.worker
	s.mu.Unlock()
	s.plan = &plan{Plan: p, wish: wish, swap: migration.NewSwap(migration.Planned, from, p.Cause, time.Now())}
	s.plan.swap.Epoch = wish.Epoch
	s.advance(migration.Start)
}

// decline answers a plan that is not begun: its record stays in Idle. It may be called from any goroutine.
func (s *Session) decline(p Plan, reason string) {
	swap := migration.NewSwap(migration.Planned, s.worker(), p.Cause, time.Now())
	swap.To, swap.Reason = p.To, reason
	p.Done(s.record(swap))
}

// busy says why the session cannot be moved now.
func (s *Session) busy(p *Plan) string {
	switch {
	case s.over:
		return hasEnded
	case s.plan != nil || s.swap != nil:
		return "the stream is being moved already"
	case s.worker() == p.To:
		return "the stream is on that worker already"
	}
	return ""
}

// advance feeds the planned swap one event and carries out what follows.
func (s *Session) advance(event migration.Event) {
	p := s.plan
	actions, err := p.swap.Apply(event, time.Now())
	if err != nil {
		s.log.Error("planned swap", zap.Error(err))
		return
	}
	p.entered, p.sent, p.late = s.deps.Clock.Now(), false, false
	s.publish(p.swap)
	for _, action := range actions {
		if s.plan == p {
			s.carryOut(action)
		}
	}
	if s.plan == p && p.swap.State().Final() {
		s.unplan()
	}
}

func (s *Session) carryOut(action migration.Action) {
	p := s.plan
	switch action {
	case migration.Pick:
		s.deps.Pool.Acquire(p.wish)
	case migration.Confirm:
		if !p.Confirm {
			s.advance(migration.Confirmed)
			return
		}
		s.log.Info("planned swap waits for confirmation", zap.String("from_worker", p.swap.From), zap.String("to_worker", p.swap.To))
	case migration.Open, migration.Transfer:
		s.ask()
	case migration.Capture:
		s.capture()
	case migration.Pivot:
		s.mu.Lock()
		s.flow.armed = true
		s.mu.Unlock()
		if p.Arrived != nil {
			p.Arrived()
		}
	case migration.ReleaseTarget:
		p.link.Cancel(s.who.ID, p.wish.Epoch)
		s.revoke(p)
	case migration.Verify, migration.Tell, migration.ReleaseSource: // come after the cut
	}
}

// reactToPlan acts on what concerns planned swaps and checkpoints.
func (s *Session) reactToPlan(event any) {
	switch e := event.(type) {
	case prepared:
		s.mu.Lock()
		m := s.flow.prepared
		s.flow.prepared = nil
		s.mu.Unlock()
		s.onPrepared(m)
	case captured:
		s.mu.Lock()
		m := s.flow.captured
		s.flow.captured = nil
		s.mu.Unlock()
		s.onCaptured(m)
	case crossed:
		if s.plan != nil && s.plan.swap.State() == migration.Pivoting {
			s.cut(e.at)
		}
	case targetLost:
		if s.targets(e.epoch) {
			s.abandon(migration.TargetLost, string(e.cause))
		}
	case rollback:
		if s.plan != nil && s.plan.Plan == e.of {
			s.abandon(migration.Cancelled, e.reason)
		}
	case held:
		s.onHeld(e)
	case turnCome:
		s.onTurn(e.turn)
	}
}

// targets reports whether epoch is that of a planned swap before its cut.
func (s *Session) targets(epoch uint64) bool { return s.plan != nil && s.plan.wish.Epoch == epoch }

// targetFailed ends a planned swap whose target does not want it.
func (s *Session) targetFailed(code wire.Code, message string) {
	event := migration.TargetLost
	switch code { //nolint:exhaustive // all others say that the target is of no use
	case wire.CodeTokenExpired:
		event = migration.Expired
	case wire.CodeDiverged:
		event = migration.Mismatch
	}
	s.abandon(event, string(code)+": "+message)
}

// onDecided confirms or vetoes the planned swap.
func (s *Session) onDecided(e decided) {
	p := s.plan
	switch {
	case p == nil && s.swap != nil && s.swap.Kind == migration.Planned:
		e.answer(wire.Errorf(wire.CodeConflict, "too late: the cut has been made"))
	case s.over:
		e.answer(wire.Errorf(wire.CodeConflict, hasEnded))
	case p == nil:
		e.answer(wire.Errorf(wire.CodeNotFound, "no planned swap of that stream is under way"))
	case e.confirm && p.swap.State() != migration.WaitingConfirmation:
		e.answer(wire.Errorf(wire.CodeConflict, "the swap does not wait for confirmation, it is %s", p.swap.State()))
	case e.confirm:
		s.advance(migration.Confirmed)
		e.answer(nil)
	default:
		s.abandon(migration.Vetoed, e.reason)
		e.answer(nil)
	}
}

// refuseAll answers what came too late.
func (s *Session) refuseAll() {
	for _, event := range s.inbox.close() {
		switch e := event.(type) {
		case planned:
			s.begin(e.Plan)
		case decided:
			s.onDecided(e)
		}
	}
}

// abandon ends a planned swap before its cut, with the event that says why. It does nothing if there is none.
func (s *Session) abandon(event migration.Event, reason string) {
	if s.plan != nil {
		s.plan.swap.Reason = reason
		s.advance(event)
	}
}

// unplan accounts for a planned swap that ended before its cut: the session stays where it was.
func (s *Session) unplan() {
	p := s.plan
	s.plan = nil
	s.mu.Lock()
	if s.flow.plan == p.wish {
		s.flow.plan = nil
	}
	s.flow.armed = false
	s.mu.Unlock()
	s.deps.Pool.Release(p.wish)
	s.discard(s.link)
	s.log.Info("planned swap ended before its cut", zap.String("from_worker", p.swap.From), zap.String("to_worker", p.swap.To),
		zap.Stringer("state", p.swap.State()), zap.String("reason", p.swap.Reason))
	s.report(p.swap, p.Done)
}

// report tells everybody how a swap ended.
func (s *Session) report(swap *migration.Swap, done func(migration.Record)) {
	r := s.record(swap)
	s.deps.Swaps(r)
	if done != nil {
		done(r)
	}
}

func (s *Session) record(swap *migration.Swap) migration.Record {
	r := swap.Record(time.Now())
	r.ConnectionID, r.StreamID = s.who.ConnectionID, s.who.StreamID
	return r
}

// checkPlan ends the state that a planned swap is in when its time is up.
func (s *Session) checkPlan() {
	p := s.plan
	if p == nil {
		return
	}
	switch {
	case p.late && s.deps.Clock.Since(p.entered) >= tokenPause:
		s.ask()
	case p.swap.State() == migration.TransferringState && !p.sent && !p.late:
		s.feed()
	}
	if s.plan != p || s.planDeadline() > 0 {
		return
	}
	switch p.swap.State() {
	case migration.Pivoting: // no token came: the cut does not need one
		s.cut(time.Now().Add(-s.silence()))
	case migration.TransferringState:
		if p.sent || s.length() < p.needs {
			s.abandon(migration.TimedOut, "the target did not get the state in time")
			return
		}
		s.feed()
	default:
		s.abandon(migration.TimedOut, timeoutReasons[p.swap.State()])
	}
}

var timeoutReasons = map[migration.State]string{
	migration.Initiating:          "no worker had room in time",
	migration.WaitingConfirmation: "no operator confirmed it in time",
	migration.Preparing:           "the target did not open the stream in time",
	migration.CapturingState:      "the source did not capture the state in time",
}

// planDeadline returns how much lived time the planned swap has left in its state.
func (s *Session) planDeadline() time.Duration {
	p := s.plan
	in := s.deps.Clock.Since(p.entered)
	switch p.swap.State() { //nolint:exhaustive // all others are over at once
	case migration.Initiating:
		return s.cfg.WorkerWait - in
	case migration.WaitingConfirmation:
		return s.cfg.ConfirmTimeout - in
	case migration.CapturingState, migration.TransferringState:
		if p.link.Stateful() {
			return s.cfg.TransferTimeout - in
		}
	case migration.Pivoting:
		s.mu.Lock()
		defer s.mu.Unlock()
		return min(max(cutIntervals*s.flow.pace.mean, cutWaitMin), cutWaitMax) - in
	}
	return s.cfg.AttachTimeout - in
}
