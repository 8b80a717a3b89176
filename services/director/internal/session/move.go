package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// minProgress is how many tokens an attempt must have delivered for the death of its worker not to be blamed
// on the request.
const minProgress = 4

// lose gives up the present attempt and moves on. avoid is a worker not to come back to.
func (s *Session) lose(cause link.Cause, avoid string) {
	s.abandon(migration.SourceLost, string(cause))
	s.blame(cause)
	if failing(cause) {
		s.reportAttempt(false)
	}
	moved := s.swap == nil
	left := string(cause) // why the worker that the client knows was left
	if s.swap != nil {
		left = s.swap.Cause
		s.swap.Reason = string(cause)
		s.step(undone(cause))
	} else {
		s.homeless, s.told = s.deps.Clock.Now(), false
		s.log.Warn("worker failed - initiating connection migration", zap.String("worker", s.worker()), zap.String("cause", string(cause)))
	}
	switch {
	case s.deaths >= s.cfg.MaxWorkerDeaths:
		s.fail(wire.Errorf(wire.CodePoison, "stopped after %d workers in a row died serving this stream; the last: %s", s.deaths, cause))
	case moved && s.tooManySwaps():
		s.fail(wire.Errorf(wire.CodeSwapLimit, "the stream was moved %d times within a minute", s.cfg.MaxSwapsPerMinute))
	case s.deps.Clock.Since(s.homeless) >= s.cfg.WorkerWait:
		s.failHomeless()
	default:
		s.move(left, avoid)
	}
}

// blame counts the workers that died in a row because of this request, as far as one can tell: before it made
// progress, though it could have.
func (s *Session) blame(cause link.Cause) {
	s.mu.Lock()
	progress := s.flow.journal.Len() - s.attemptAt
	exhausted := s.flow.journal.Len() >= s.flow.client.granted
	s.mu.Unlock()
	if progress >= minProgress {
		s.deaths = 0
	}
	if progress >= 4*minProgress {
		s.patience = 1
	}
	if progress == 0 && s.suspected < maxSuspected && failing(cause) && s.link != nil && !s.deps.Placement.Proven(s.link) {
		s.suspected++ // the worker's fault, as far as one can tell
		return
	}
	switch {
	case s.link == nil: // the worker died before it was given the request
	case cause == link.CauseStuck && progress == 0, cause.Deadly() && progress < minProgress && !exhausted:
		s.deaths++
	}
}

// maxSuspected is how often in a row a worker that has never served anything may fail without its being the request's fault.
const maxSuspected = 16

// failing reports whether a cause says that a worker which lives is of no use to its streams.
func failing(cause link.Cause) bool {
	switch cause { //nolint:exhaustive // at all others the worker is gone, or declines
	case link.CauseEngine, link.CauseStuck, link.CauseAttach, link.CauseDiverged:
		return true
	}
	return false
}

// reportAttempt tells the placement, once, how the attempt went.
func (s *Session) reportAttempt(ok bool) {
	if s.link == nil || s.reported {
		return
	}
	s.reported = true
	if ok {
		s.suspected = 0
	}
	s.deps.Placement.Report(s.wish.Request, s.link, ok)
}

// undone returns the event that ends a swap whose target is given up.
func undone(cause link.Cause) migration.Event {
	switch cause { //nolint:exhaustive // all others mean that the target is gone
	case link.CauseDiverged:
		return migration.Mismatch
	case link.CauseAttach, link.CauseStuck:
		return migration.TimedOut
	}
	return migration.TargetLost
}

func (s *Session) worker() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flow.worker
}

// tooManySwaps counts the swap that is about to begin.
func (s *Session) tooManySwaps() bool {
	now := time.Now()
	for len(s.recent) > 0 && now.Sub(s.recent[0]) > time.Minute {
		s.recent = s.recent[1:]
	}
	s.recent = append(s.recent, now)
	return len(s.recent) > s.cfg.MaxSwapsPerMinute
}

// move begins a swap: to the first worker, or from one that is lost.
func (s *Session) move(cause, avoid string) {
	s.leave()
	s.mu.Lock()
	s.fence()
	from := s.flow.worker
	if s.flow.wish == nil || s.flow.wish == s.wish {
		s.wishFor(avoid)
	}
	s.wish, s.reported = s.flow.wish, false
	s.mu.Unlock()
	kind := migration.Failover
	if from == "" {
		kind = migration.Placement
	}
	s.swap = migration.NewSwap(kind, from, cause, time.Now())
	s.swap.Epoch, s.swap.Cut = s.wish.Epoch, s.length()
	s.keep.cutAt(s.swap.Cut)
	s.step(migration.Start)
}

// leave gives the present attempt up: its place, and the worker's part. Unless the session is over it keeps what Lost
// has asked for meanwhile.
func (s *Session) leave() {
	if s.link != nil {
		s.link.Cancel(s.who.ID, s.wish.Epoch)
		s.link = nil
	}
	s.mu.Lock()
	newest, closed := s.flow.wish, s.flow.closed
	s.mu.Unlock()
	if newest != nil && (closed || newest == s.wish) {
		s.deps.Placement.Release(newest.Request)
	}
	s.releaseSource()
}

// step feeds the swap one event and carries out what follows from it.
func (s *Session) step(event migration.Event) {
	if s.swap == nil {
		return
	}
	actions, err := s.swap.Apply(event, time.Now())
	if err != nil {
		s.log.Error("swap", zap.Error(err))
		return
	}
	s.entered = s.deps.Clock.Now()
	swap := s.swap
	s.publish(swap)
	for _, action := range actions {
		s.act(action)
	}
	if s.swap == swap && swap.State().Final() {
		s.swapOver()
	}
}

func (s *Session) act(action migration.Action) {
	switch action {
	case migration.Pick:
		s.deps.Placement.Queue(s.wish.Request)
	case migration.Open:
		s.log.Debug("opening attempt", zap.String("worker", s.link.Worker()), zap.Uint64("epoch", s.wish.Epoch))
		s.step(migration.Opened)
	case migration.Capture:
		s.attemptAt = s.swap.Cut // the journal is the state; fenced, it does not grow
		s.step(migration.Captured)
	case migration.Transfer:
		s.link.Attach(s.attachment(), s)
	case migration.Pivot:
		s.step(migration.Pivoted) // the source was fenced when it was lost
	case migration.Verify:
		s.deps.Placement.Settled(s.wish.Request) // what is left takes the engine's time, and nobody else's
		s.mu.Lock()
		ready := len(s.flow.held) > 0
		s.mu.Unlock()
		if ready && s.swap.Kind != migration.Planned { // of which the Begin has not been looked at yet
			s.step(migration.Verified)
		}
	case migration.Tell:
		if s.tell() {
			s.step(migration.Told)
		}
	case migration.ReleaseSource:
		s.releaseSource()
	case migration.Confirm, migration.ReleaseTarget:
		// What is beyond its cut, or never had one, needs no confirmation. The target is left by leave, which follows.
	}
}

// releaseSource takes the session back from the worker that a planned swap leaves.
func (s *Session) releaseSource() {
	if s.source.link == nil {
		return
	}
	s.source.link.Cancel(s.who.ID, s.source.wish.Epoch)
	s.discard(s.source.link)
	s.deps.Placement.Release(s.source.wish.Request)
	s.source = attempt{}
}

// attachment returns what the target needs to go on, and opens the session for its answer.
func (s *Session) attachment() *wirepb.Attach {
	s.mu.Lock()
	s.expect(s.wish.Epoch)
	attach := s.attach(s.wish.Epoch)
	s.mu.Unlock()
	attach.Checkpoint = s.checkpointFor(s.link)
	return attach
}

// expect opens the session for the answer of an attempt, which is verified before it counts. s.mu is held.
func (s *Session) expect(epoch uint64) {
	f := &s.flow
	f.pending, f.begun, f.held = epoch, false, nil
	// One token at least, even to a client that reads nothing: without it the target could not be verified.
	f.client.granted = max(f.client.sent+uint64(s.cfg.Window), f.journal.Len()+1)
}

// attach is called with s.mu held.
func (s *Session) attach(epoch uint64) *wirepb.Attach {
	f := &s.flow
	text, lengths := f.journal.Prefix()
	digest := f.journal.Digest()
	return &wirepb.Attach{
		Session: s.who.ID, Epoch: epoch, ConnectionId: s.who.ConnectionID, StreamId: s.who.StreamID,
		Request: s.request, Credit: f.client.granted,
		Prefix: &wirepb.Prefix{Text: text, Lengths: lengths, Digest: digest[:]},
	}
}

func (s *Session) digest() session.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flow.journal.Digest()
}

// tell makes the target the session's worker: the client is told, and gets the tokens held so far. It reports
// false if the target was lost meanwhile; the event that says so is on its way.
func (s *Session) tell() bool {
	latency := s.deps.Placement.Latency(s.link)
	s.mu.Lock()
	f := &s.flow
	if f.pending != s.wish.Epoch {
		s.mu.Unlock()
		return false
	}
	if s.swap.Kind == migration.Placement {
		f.client.put(&wirepb.Assigned{Worker: s.swap.To, Epoch: s.swap.Epoch})
	} else {
		f.swaps++
		f.client.put(&wirepb.Swapped{
			FromWorker: s.swap.From, ToWorker: s.swap.To, Kind: s.swap.Kind.String(), Cause: s.swap.Cause,
			Epoch: s.swap.Epoch, LastSequence: s.swap.Cut,
		})
	}
	s.swap.Gap = s.gap()
	f.waiting = false
	f.worker, f.fingerprint, f.link = s.swap.To, s.link.Fingerprint(), s.link
	f.epoch, f.pending, f.begun = f.pending, 0, false
	held := f.held
	f.held = nil
	f.pace.restart(s.deps.Clock.Now())
	f.proof, f.latency = s.swap.Cut+minProgress, latency
	for i, text := range held {
		s.accept(wire.Token{Epoch: f.epoch, Sequence: s.swap.Cut + uint64(i) + 1, Text: text})
	}
	s.push()
	grant := s.credit()
	s.mu.Unlock()
	if grant != nil {
		s.link.Grant(grant)
	}
	return true
}

// gap returns how long no token came, beyond the stream's usual interval. The planned swaps measure it exactly, all
// others in ticks of the stall-proof clock. s.mu is held.
func (s *Session) gap() time.Duration {
	p := &s.flow.pace
	silence := s.deps.Clock.Since(p.last)
	if s.swap.Kind == migration.Planned {
		silence = time.Since(s.last)
	}
	return max(0, silence-p.mean)
}

// swapOver accounts for a swap that has ended.
func (s *Session) swapOver() {
	swap := s.swap
	s.swap = nil
	s.deps.Placement.Settled(s.wish.Request)
	switch {
	case swap.State() == migration.Completed && swap.Kind == migration.Placement:
		s.log.Info("worker assigned", zap.String("worker", swap.To), zap.Uint64("epoch", swap.Epoch))
	case swap.State() == migration.Completed:
		s.log.Info("migrating connection to new worker", zap.String("from_worker", swap.From), zap.String("to_worker", swap.To),
			zap.Stringer("kind", swap.Kind), zap.Uint64("sequence", swap.Cut+1), zap.Uint64("epoch", swap.Epoch))
	}
	if swap.Kind == migration.Placement {
		return
	}
	done := s.planned
	s.planned = nil
	s.report(swap, done)
}
