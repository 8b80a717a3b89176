package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// This file is how a stream comes from one worker to the next.

// move begins a handover from a worker that is lost for a cause, or from nobody.
func (s *Session) move(place *placement.Request, cause string) {
	s.depends.on(place, nil)
	s.handover = handover.New(s.view.worker(), cause, place, s.unassigned, s.cfg.Handover, s.handoverDeps())
	s.handover.Start()
	s.settle()
}

func (s *Session) handoverDeps() handover.Deps {
	return handover.Deps{Stream: s.stream, States: s.states, Places: s.deps.Placement, Owner: (*owner)(s), Clock: s.deps.Clock, Log: s.log}
}

// place returns a wish for a worker other than avoid, if there is another. What the stream had before has been given back.
func (s *Session) place(avoid string) *placement.Request {
	r := placement.Request{Kind: s.depends.kind, Need: routing.Need{Avoid: avoid}}
	if s.depends.own != nil {
		r.BadTries = s.depends.own.BadTries
	}
	return s.want(r)
}

func (s *Session) want(r placement.Request) *placement.Request {
	r.Session, r.ID, r.Started, r.Priority = &s.depends, s.stream.ID, s.started.Unix(), s.stream.Request.GetPriority()
	r.Need.Fingerprint = s.view.fingerprint()
	return &r
}

// lose gives up the attempt that the stream depends on, and moves on. If the worker's link is lost, queued is the place that has been asked for again
// already; else it is nil, and the worker is not to be taken again if there is another.
func (s *Session) lose(cause link.Cause, queued *placement.Request) {
	s.record.Fence()
	moved := s.serving != nil
	left := string(cause) // why the worker that the client knows was left
	if moved {
		s.loseSource(cause)
	}
	gone := s.serving
	if gone == nil {
		gone = s.handover.Target()
	}
	s.blame.lost(cause, s.record.Len(), s.record.Exhausted(), s.deps.Placement.Proven(gone.Link))
	if failing(cause) {
		s.report(gone, false)
	}
	if moved {
		s.leaveServing(queued)
		s.unassigned, s.told = s.deps.Clock.Now(), false
		s.log.Warn("worker failed - initiating connection migration", zap.String("worker", gone.Link.Worker()), zap.String("cause", string(cause)))
	} else {
		left = s.handover.Cause()
		if queued != nil {
			s.handover.TargetLost(string(cause))
		} else {
			s.handover.End(undone(cause), string(cause))
		}
		s.settle()
	}
	if s.goesOn(moved, cause) {
		if queued == nil {
			queued = s.place(gone.Link.Worker())
		}
		s.move(queued, left)
	}
}

// report tells the placement, once, how an attempt went.
func (s *Session) report(a *attempt.Attempt, ok bool) {
	if s.reported == a {
		return
	}
	s.reported = a
	if ok {
		s.blame.suspected = 0
	}
	s.deps.Placement.Report(a.Place, a.Link, ok)
}

// loseSource ends a planned handover whose source is lost.
func (s *Session) loseSource(cause link.Cause) {
	if s.handover != nil {
		s.handover.End(migration.SourceLost, string(cause))
		s.settle()
	}
}

// leaveServing takes the stream back from the worker that serves it, and its place unless that is queued again.
func (s *Session) leaveServing(queued *placement.Request) {
	s.serving.Leave()
	if queued == nil {
		s.deps.Placement.Release(s.serving.Place)
	}
	s.serving = nil
	s.states.Cut(s.record.Len())
}

// goesOn reports whether a stream that has no worker is to get another; if not it has been ended.
func (s *Session) goesOn(moved bool, cause link.Cause) bool {
	switch {
	case s.record.Len() == uint64(s.stream.Request.GetMaxTokens()):
		s.finish("length") // there is nothing left to generate; only the worker's last word is missing
	case s.blame.deaths >= s.cfg.MaxWorkerDeaths:
		s.fail(wire.Errorf(wire.CodePoison, "stopped after %d workers in a row died serving this stream; the last: %s", s.blame.deaths, cause))
	case moved && s.blame.moved() > s.cfg.MaxSwapsPerMinute:
		s.fail(wire.Errorf(wire.CodeSwapLimit, "the stream was moved %d times within a minute", s.cfg.MaxSwapsPerMinute))
	case s.deps.Clock.Since(s.unassigned) >= s.cfg.Handover.WorkerWait:
		s.failUnassigned()
	default:
		return true
	}
	return false
}

func (s *Session) failUnassigned() {
	s.fail(wire.Errorf(wire.CodeNoWorker, "no worker took the stream within %v", s.cfg.Handover.WorkerWait))
}

// undone returns the event that ends a handover whose target is given up.
func undone(cause link.Cause) migration.Event {
	switch cause { //nolint:exhaustive // all others mean that the target is gone
	case link.CauseDiverged:
		return migration.Mismatch
	case link.CauseAttach, link.CauseStuck:
		return migration.TimedOut
	}
	return migration.TargetLost
}

// owner is a Session as its handovers see it.
type owner Session

// Cut moves the stream's dependence from source to target.
func (o *owner) Cut(source, target *attempt.Attempt) (credit, cut uint64, ok bool) {
	s := (*Session)(o)
	if credit, cut, ok = s.depends.cut(source, target); ok {
		s.serving = nil
		s.states.Cut(cut)
		s.unassigned, s.told, s.blame.began = s.deps.Clock.Now(), false, cut
	}
	return credit, cut, ok
}

// Show shows people where the handover stands.
func (o *owner) Show(h *handover.Handover) { (*Session)(o).view.moves(h) }

// settle accounts for a handover that is over.
func (s *Session) settle() {
	h := s.handover
	if h == nil || !h.Over() {
		return
	}
	s.handover = nil
	s.depends.plans(nil)
	r := h.Record()
	switch {
	case h.State() == migration.Completed:
		s.deps.Placement.Settled(h.Place())
		s.serves(h)
	case s.serving != nil: // it stays where it was
		s.states.Serving(s.serving)
		s.log.Info("planned swap ended before its cut", zap.String("from_worker", r.From), zap.String("to_worker", r.To),
			zap.String("state", r.State), zap.String("reason", r.Reason))
	}
	if h.Kind() != migration.Placement {
		s.deps.Swaps(r)
	}
	if plan := h.Plan(); plan != nil && plan.Done != nil {
		plan.Done(r)
	}
}

// serves takes note that the target of a handover serves the stream, as the client has been told.
func (s *Session) serves(h *handover.Handover) {
	s.serving = h.Target()
	s.states.Serving(s.serving)
	s.depends.served(s.serving.Link.Fingerprint())
	s.view.serve(s.serving.Link, h.Kind())
	r := h.Record()
	if h.Kind() == migration.Placement {
		s.log.Info("worker assigned", zap.String("worker", r.To), zap.Uint64("epoch", r.Epoch))
		return
	}
	s.log.Info("migrating connection to new worker", zap.String("from_worker", r.From), zap.String("to_worker", r.To),
		zap.Stringer("kind", h.Kind()), zap.Uint64("sequence", r.Cut+1), zap.Uint64("epoch", r.Epoch))
}

// checkTime ends what took too long. Time that this process did not live does not count.
func (s *Session) checkTime() {
	if s.over {
		return
	}
	if s.handover != nil && s.handover.SourceServes() {
		s.handover.Check()
		s.settle()
	}
	s.states.Check()
	if s.over || s.remaining() > 0 {
		return
	}
	switch h := s.handover; {
	case s.serving != nil:
		s.stuck()
	case h.State() == migration.Initiating:
		h.End(migration.TimedOut, "no worker in time")
		s.settle()
		s.failUnassigned()
	case h.State() == migration.Verifying:
		s.lose(link.CauseStuck, nil)
	default:
		s.lose(link.CauseAttach, nil)
	}
}

// stuck moves a stream whose worker is healthy but produces nothing for it. If there is nowhere to go it waits
// where it is, for as long as it would wait for a worker; then it begins anew, on the same one if need be.
func (s *Session) stuck() {
	if s.alternative() || -s.remaining() >= s.cfg.Handover.WorkerWait {
		s.blame.stuck()
		s.lose(link.CauseStuck, nil)
	}
}

// alternative reports whether there is a worker to move to.
func (s *Session) alternative() bool {
	return s.deps.Placement.Alternative(routing.Need{Fingerprint: s.view.fingerprint(), Avoid: s.serving.Link.Worker()})
}

// remaining returns how much stall-proof time is left for what the session waits for.
func (s *Session) remaining() time.Duration {
	switch {
	case s.over:
		return time.Hour
	case s.serving == nil:
		return s.handover.Remaining()
	}
	limits := s.cfg.Tokens
	limits.TokenMin = max(limits.TokenMin, s.serving.Link.Lateness())
	return s.record.Silence(limits, s.blame.factor)
}

// nextCheck returns when to look at the time again: tokens move the deadline without waking the owner, and the
// first ones bring it nearer. A deadline that has passed without effect is looked at again now and then.
func (s *Session) nextCheck() time.Duration {
	left := s.remaining()
	if left <= 0 {
		left = s.cfg.Tokens.TokenMin
	}
	if !s.over && s.handover != nil && s.handover.SourceServes() {
		left = min(left, s.handover.Remaining(), handover.TokenPause)
	}
	return max(clock.Tick, min(left, s.cfg.Tokens.TokenMin))
}
