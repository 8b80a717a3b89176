package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Run serves the stream to its end. It returns when nothing of the session runs any more.
func (s *Session) Run(ctx context.Context) {
	defer s.cleanUp()
	timer := time.NewTimer(clock.Tick)
	defer timer.Stop()
	s.homeless = s.deps.Clock.Now()
	s.move("", "")
	for !s.over || !s.flushed() {
		select {
		case <-ctx.Done():
			s.ends(Cancelled, "the connection ended")
			return
		case <-s.flow.client.stream.Context().Done():
			s.log.Info("stream cancelled by the client", zap.Uint64("sequence", s.length()))
			s.ends(Cancelled, "cancelled by the client")
			return
		case <-s.inbox.ready:
			gone := false
			for _, event := range s.inbox.take() { // all: some wait for an answer
				gone = s.handle(event) || gone
			}
			if gone {
				return
			}
		case <-timer.C:
			if s.stalled() {
				s.log.Warn("client read nothing for too long", zap.Duration("limit", s.cfg.ClientStall))
				s.ends(Failed, string(wire.CodeClientStall))
				s.flow.client.stream.CancelWrite(wire.StreamStalled) // an Error frame could not be written
				return
			}
		}
		s.checkTime()
		timer.Reset(s.nextCheck())
	}
	_ = s.flow.client.stream.Close() // an error here means that the client is gone
}

func (s *Session) length() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flow.journal.Len()
}

// flushed reports whether the client's connection has taken everything.
func (s *Session) flushed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flow.client.out) == 0 && !s.flow.client.writing
}

// cleanUp takes the session back from wherever it is.
func (s *Session) cleanUp() {
	s.mu.Lock()
	s.fence()
	s.flow.closed = true
	writing := s.flow.client.writing
	s.flow.client.gone = true // whoever flushes now starts no writer
	s.mu.Unlock()
	s.ends(Cancelled, "the connection ended")
	s.over = true
	s.abandon(migration.Cancelled, hasEnded)
	s.giveUp(hasEnded)
	s.leave()
	s.refuseAll()
	s.forgetCheckpoint()
	if writing {
		s.flow.client.stream.CancelWrite(wire.StreamCancel)
	}
	s.writers.Wait()
}

// giveUp ends the swap that is under way.
func (s *Session) giveUp(reason string) {
	if s.swap != nil {
		s.swap.Reason = reason
		s.step(migration.Cancelled)
	}
}

// handle acts on one event, and reports whether the client is gone.
func (s *Session) handle(event any) (gone bool) {
	switch e := event.(type) {
	case clientGone:
		s.log.Info("client gone", zap.Error(e.err))
		s.ends(Cancelled, "the client is gone")
		s.over = true
		return true
	case relieved:
		s.grantMore()
		return false
	case planned:
		s.begin(e.Plan)
		return false
	case decided:
		s.onDecided(e)
		return false
	}
	if s.over {
		return false
	}
	s.react(event)
	return false
}

// react acts on what happened to a stream that goes on.
func (s *Session) react(event any) {
	switch e := event.(type) {
	case granted:
		s.onGranted(e)
	case waiting:
		s.onWaiting(e)
	case begun:
		s.onBegun(e.m)
	case firstToken:
		if s.current(e.epoch) && s.in(migration.Verifying) {
			s.step(migration.Verified)
		}
	case ended:
		s.onEnded(e.m)
	case full:
		if s.current(e.epoch) {
			s.finish("length")
		}
	case workerLost:
		if s.current(e.epoch) {
			s.lose(e.cause, "")
		}
	case refused:
		s.onRefused(e.m)
	case failed:
		s.onFailed(e.m)
	default:
		s.reactToPlan(event)
	}
}

// current reports whether epoch is that of the attempt that the session has now.
func (s *Session) current(epoch uint64) bool { return s.wish != nil && s.wish.Epoch == epoch }

// in reports whether a swap is under way and in the given state.
func (s *Session) in(state migration.State) bool { return s.swap != nil && s.swap.State() == state }

func (s *Session) onGranted(e granted) {
	if s.plan != nil && e.wish == s.plan.wish {
		s.plan.link, s.plan.swap.To = e.link, e.link.Worker()
		s.advance(migration.Granted)
		return
	}
	if e.wish != s.wish || !s.in(migration.Initiating) {
		return // what was released meanwhile is free already
	}
	s.link = e.link
	s.swap.To = e.link.Worker()
	s.step(migration.Granted)
}

func (s *Session) onWaiting(e waiting) {
	if e.wish != s.wish || !s.in(migration.Initiating) {
		return
	}
	if s.told {
		return
	}
	s.told = true
	s.log.Info("waiting for a worker", zap.String("reason", e.reason))
	left := max(0, s.cfg.WorkerWait-s.deps.Clock.Since(s.homeless))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flow.waiting = true
	s.flow.client.put(&wirepb.Waiting{Reason: e.reason, TimeoutMs: uint64(left.Milliseconds())})
	s.push()
}

func (s *Session) onBegun(m *wirepb.Begin) {
	pivoted := s.in(migration.Verifying) && s.swap.Kind == migration.Planned
	if !s.current(m.GetEpoch()) || !s.in(migration.TransferringState) && !pivoted {
		return
	}
	if m.GetNextSequence() != s.swap.Cut+1 || !s.digest().Equal(m.GetDigest()) {
		s.log.Error("target's prefix differs", zap.String("worker", s.link.Worker()),
			zap.Uint64("sequence", m.GetNextSequence()), zap.Uint64("cut", s.swap.Cut))
		s.lose(link.CauseDiverged, s.link.Worker())
		return
	}
	if !pivoted {
		s.step(migration.Accepted)
	}
}

// onEnded ends the stream, if the worker ended it where the journal ends.
func (s *Session) onEnded(m *wirepb.End) {
	if s.targets(m.GetEpoch()) {
		s.abandon(migration.TargetLost, "the target ended the stream before it had it")
		return
	}
	if !s.current(m.GetEpoch()) || s.link == nil {
		return
	}
	if s.in(migration.Verifying) { // there was nothing left to generate
		s.step(migration.Verified)
	}
	if s.swap != nil || m.GetTokens() != s.length() || !s.digest().Equal(m.GetDigest()) {
		s.log.Error("worker's end differs from the journal", zap.Uint64("tokens", m.GetTokens()), zap.Uint64("sequence", s.length()))
		s.lose(link.CauseDiverged, s.link.Worker())
		return
	}
	s.finish(m.GetFinishReason())
}

func (s *Session) onRefused(m *wirepb.Refused) {
	if s.targets(m.GetEpoch()) {
		s.targetFailed(wire.Code(m.GetCode()), m.GetMessage())
		return
	}
	if !s.current(m.GetEpoch()) || s.link == nil {
		return
	}
	code := wire.Code(m.GetCode())
	s.log.Info("worker declined", zap.String("worker", s.link.Worker()), zap.String("code", m.GetCode()), zap.String("reason", m.GetMessage()))
	switch code {
	case wire.CodeInvalid:
		s.fail(wire.Errorf(code, "%s", m.GetMessage()))
	case wire.CodeDiverged:
		s.lose(link.CauseDiverged, s.link.Worker())
	default:
		s.lose(link.CauseDeclined, s.link.Worker())
	}
}

func (s *Session) onFailed(m *wirepb.Fail) {
	if s.targets(m.GetEpoch()) {
		s.targetFailed(wire.Code(m.GetCode()), m.GetMessage())
		return
	}
	if !s.current(m.GetEpoch()) || s.link == nil {
		return
	}
	s.log.Warn("engine failed", zap.String("worker", s.link.Worker()), zap.String("code", m.GetCode()), zap.String("reason", m.GetMessage()))
	if wire.Code(m.GetCode()) == wire.CodeInvalid {
		s.fail(wire.Errorf(wire.CodeInvalid, "%s", m.GetMessage()))
		return
	}
	s.lose(link.CauseEngine, s.link.Worker())
}

// grantMore passes on the credit that a client freed by reading at last.
func (s *Session) grantMore() {
	s.mu.Lock()
	g := s.credit()
	s.mu.Unlock()
	if g != nil && s.link != nil {
		s.link.Grant(g)
	}
}

// finish ends the stream in completion.
func (s *Session) finish(reason string) {
	s.mu.Lock()
	f := &s.flow
	digest := f.journal.Digest()
	s.close(&wirepb.Done{FinishReason: wire.Text(reason), Tokens: f.journal.Len(), Swaps: f.swaps, Digest: digest[:]})
	tokens, swaps := f.journal.Len(), f.swaps
	s.mu.Unlock()
	s.ends(Done, reason)
	s.abandon(migration.Cancelled, hasEnded)
	s.keep.stop()
	s.leave()
	s.log.Info("stream done", zap.String("finish_reason", reason), zap.Uint64("tokens", tokens), zap.Uint32("swaps", swaps))
}

// fail ends the stream in an explicit error.
func (s *Session) fail(err *wire.Error) {
	s.mu.Lock()
	s.close(err.Proto())
	s.mu.Unlock()
	s.ends(Failed, string(err.Code))
	s.abandon(migration.Cancelled, hasEnded)
	s.giveUp(hasEnded)
	s.keep.stop()
	s.leave()
	s.log.Warn("stream ended in an error", zap.Error(err))
}

// close queues the stream's last frame. s.mu is held.
func (s *Session) close(last wire.Message) {
	s.over = true
	s.fence()
	s.flow.closed = true
	s.flow.client.put(last)
	s.flow.client.last = true
	s.push()
}

// checkTime ends what took too long. Time that this process did not live does not count.
func (s *Session) checkTime() {
	if s.over {
		return
	}
	s.checkPlan()
	s.checkpointIfDue()
	if s.nextDeadline() > 0 {
		return
	}
	switch {
	case s.in(migration.Initiating):
		s.swap.Reason = "no worker in time"
		s.step(migration.TimedOut)
		s.failHomeless()
	case s.in(migration.Verifying):
		s.lose(link.CauseStuck, s.link.Worker())
	case s.swap != nil:
		s.lose(link.CauseAttach, s.link.Worker())
	default:
		s.stuck()
	}
}

func (s *Session) failHomeless() {
	s.fail(wire.Errorf(wire.CodeNoWorker, "no worker took the stream within %v", s.cfg.WorkerWait))
}

// stuck moves a stream whose worker is healthy but produces nothing for it. If there is nowhere to go it waits
// where it is, for as long as it would wait for a worker; then it begins anew, on the same one if need be.
func (s *Session) stuck() {
	s.mu.Lock()
	fingerprint := s.flow.fingerprint
	s.mu.Unlock()
	label := s.link.Worker()
	if s.deps.Pool.Alternative(fingerprint, label) || -s.nextDeadline() >= s.cfg.WorkerWait {
		s.patience = min(2*s.patience, maxPatience)
		s.lose(link.CauseStuck, label)
	}
}

// maxPatience bounds how far a stream follows workers that have all become slow.
const maxPatience = 64

// nextDeadline returns how much time is left, by the stall-proof clock, for what the session waits for.
func (s *Session) nextDeadline() time.Duration {
	clock := s.deps.Clock
	switch {
	case s.over:
		return time.Hour
	case s.in(migration.Initiating):
		return s.cfg.WorkerWait - clock.Since(s.homeless)
	case s.in(migration.Verifying):
		return s.cfg.FirstTokenTimeout - clock.Since(s.entered)
	case s.swap != nil && s.link.Stateful():
		return s.cfg.TransferTimeout - clock.Since(s.entered) // it gets the state, or computes everything again
	case s.swap != nil:
		return s.cfg.AttachTimeout - clock.Since(s.entered)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	if f.journal.Len() >= f.client.granted {
		f.pace.touch(clock.Now()) // the worker may not send: its silence says nothing
	}
	return s.patience*max(f.pace.deadline(s.cfg), s.link.Lateness()) - clock.Since(f.pace.last)
}

// nextCheck returns when to look at the time again: tokens move the deadline without waking the owner, and the
// first ones bring it nearer. A deadline that has passed without effect is looked at again now and then.
func (s *Session) nextCheck() time.Duration {
	left := s.nextDeadline()
	if left <= 0 {
		left = s.cfg.TokenTimeoutMin
	}
	if s.plan != nil {
		left = min(left, s.planDeadline(), tokenPause)
	}
	return max(clock.Tick, min(left, s.cfg.TokenTimeoutMin))
}
