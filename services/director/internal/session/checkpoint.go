package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Checkpoints keeps engines' states for sessions whose worker dies.
type Checkpoints interface {
	// Fetch gets a session's state and keeps it, in place of an older one. It returns at once; done is called once,
	// from another goroutine, with the token after which the state was taken. What it returns gives that up.
	Fetch(from *wirepb.Fetch, done func(sequence uint64, err error)) (cancel func())
	// Addr returns where the worker behind a link can get it, "host:port", and who keeps it.
	Addr(l *pool.Link) (addr, keeper string)
	// Allow lets whoever shows the token's secret get the state of its session.
	Allow(t *wirepb.Token) error
	// Drop forgets a session's state.
	Drop(session uint64)
}

// checkpoint is where the newest state of the session's engine is. It is owned by Run.
type checkpoint struct {
	epoch    uint64     // of the worker whose state it was; 0 if there is none
	sequence uint64     // the state is that after this token
	peer     *pool.Link // of the worker that keeps it; nil if the director does

	captures uint64        // requests made so far, for planned swaps too
	turn     *Turn         // that the next checkpoint waits for, or that the one under way has; nil if there is none
	asked    uint64        // number of the request that a checkpoint waits for; 0 if none is under way
	source   uint64        // epoch of the worker that was asked
	since    time.Duration // lived time of that request
	place    *pool.Link    // where that one goes; nil for the director
	cancel   func()        // ends the transfer to the director
	out      uint64        // number of the request whose token may still be used; 0 if there is none
	failures int           // in a row, of the same worker
}

// stop ends the checkpoint that is under way, if there is one, or gives up its turn.
func (k *checkpoint) stop() {
	k.asked = 0
	if k.cancel != nil {
		k.cancel()
		k.cancel = nil
	}
	if k.turn != nil {
		k.turn.End()
		k.turn = nil
	}
}

// askForState asks the session's worker for a snapshot, to be kept for a time, and returns the request's number.
func (s *Session) askForState(keep time.Duration) uint64 {
	s.keep.captures++
	s.link.Send(&wirepb.Capture{
		Session: s.who.ID, Epoch: s.wish.Epoch, Capture: s.keep.captures, KeepMs: uint64(keep.Milliseconds()),
	})
	return s.keep.captures
}

// discard lets a worker forget what it captured of the session.
func (s *Session) discard(l *pool.Link) {
	if l != nil && l.Stateful() {
		l.Send(&wirepb.Discard{Session: s.who.ID})
	}
}

// checkpointIfDue asks for the turn to make a checkpoint when it is time. One that takes longer than a transfer may is
// given up.
func (s *Session) checkpointIfDue() {
	k := &s.keep
	switch since := s.deps.Clock.Since(k.since); {
	case k.asked != 0 && k.source != s.wish.Epoch:
		k.stop() // the worker that was asked has been left
	case k.asked != 0 && k.place != nil && !k.place.Up():
		s.noCheckpoint(wire.Errorf(wire.CodeLost, "the peer is gone"))
	case k.asked != 0 && since >= s.cfg.TransferTimeout:
		s.noCheckpoint(wire.Errorf(wire.CodeUnavailable, "it took more than %v", s.cfg.TransferTimeout))
	case k.asked != 0 && since >= longestTurn:
		k.turn.End()
	case k.turn == nil && s.checkpoints() && since >= s.checkpointWait():
		k.turn = s.deps.Turns.Ask(s.link.Worker(), func(t *Turn) { s.inbox.put(turnCome{t}) })
	}
}

// mostDoublings bounds how much rarer checkpoints become where they fail: each has cost a transfer, maybe for nothing.
const mostDoublings = 6

// checkpointWait is how long to wait after the last one.
func (s *Session) checkpointWait() time.Duration {
	if s.keep.source != s.wish.Epoch {
		return s.cfg.CheckpointInterval
	}
	return s.cfg.CheckpointInterval << min(s.keep.failures, mostDoublings)
}

// checkpoints reports whether a checkpoint of the session can be made now.
func (s *Session) checkpoints() bool {
	streaming := s.plan == nil && s.swap == nil && s.link != nil
	return s.cfg.CheckpointInterval > 0 && streaming && s.link.Stateful()
}

// onTurn begins a checkpoint.
func (s *Session) onTurn(turn *Turn) {
	k := &s.keep
	switch {
	case turn != k.turn: // it was given up
	case !s.checkpoints() || turn.label != s.link.Worker(): // it was at the worker that the session has left
		k.stop()
	default:
		if k.source != s.wish.Epoch {
			k.failures = 0
		}
		if k.place != nil && !k.place.Up() {
			k.place = nil // what it keeps is lost; this one goes elsewhere
		}
		k.since, k.source = s.deps.Clock.Now(), s.wish.Epoch
		k.asked = s.askForState(s.cfg.TransferTimeout)
	}
}

// withdrawCheckpoint ends the checkpoint that is under way, and takes its token back: whoever pulls with it, late, would
// get what a planned swap has captured meanwhile, and use that up. Tokens after it lead to a later epoch.
func (s *Session) withdrawCheckpoint() {
	k := &s.keep
	if k.asked == 0 && k.out == 0 {
		return
	}
	if k.source == s.wish.Epoch { // else the worker that would honour the token has been left
		s.mu.Lock()
		s.flow.highest++ // that of the token
		epoch := s.flow.highest
		s.mu.Unlock()
		s.link.Send(&wirepb.Revoke{Session: s.who.ID, Epoch: epoch})
	}
	k.out = 0
	k.stop()
}

// onCaptured hears that there is a snapshot: for the planned swap, or for a checkpoint.
func (s *Session) onCaptured(m *wirepb.Captured) {
	switch p := s.plan; {
	case !s.current(m.GetEpoch()) || s.link == nil: // of a worker that the session has left
	case p != nil && p.capture == m.GetCapture() && p.swap.State() == migration.CapturingState:
		if m.GetCode() != "" {
			s.abandon(migration.Cancelled, m.GetCode()+": "+m.GetMessage())
			return
		}
		p.needs = m.GetSequence()
		s.advance(migration.Captured)
	case s.keep.asked != 0 && s.keep.asked == m.GetCapture():
		if m.GetCode() != "" {
			s.noCheckpoint(wire.Errorf(wire.Code(m.GetCode()), "%s", m.GetMessage()))
			return
		}
		s.store(m)
	}
}

// store has the snapshot brought to where checkpoints are kept.
func (s *Session) store(m *wirepb.Captured) {
	k := &s.keep
	_, keeper := s.deps.Checkpoints.Addr(s.link)
	k.place = nil
	if s.cfg.CheckpointAtPeer {
		if k.place = s.deps.Pool.Peer(s.link.Worker()); k.place == nil {
			s.noCheckpoint(wire.Errorf(wire.CodeNoWorker, "no peer to keep it"))
			return
		}
		keeper = k.place.Worker()
	}
	s.mu.Lock()
	next := s.flow.highest + 1
	s.mu.Unlock()
	token, err := s.allow(s.link, wirepb.Purpose_PURPOSE_STATE_TRANSFER, s.link.Worker(), keeper, s.wish.Epoch, next)
	if err != nil {
		s.noCheckpoint(err)
		return
	}
	from := &wirepb.Fetch{
		Session: s.who.ID, Epoch: next, Addr: s.link.MgmtAddr(), Token: token, Sequence: m.GetSequence(),
		TimeoutMs: uint64(s.cfg.TransferTimeout.Milliseconds()),
	}
	k.out = k.asked
	if k.place != nil {
		k.place.Hold(s, &wirepb.Hold{From: from, SourceEpoch: s.wish.Epoch})
		return
	}
	epoch, request := s.wish.Epoch, k.asked
	k.cancel = s.deps.Checkpoints.Fetch(from, func(sequence uint64, err error) {
		if !s.inbox.put(held{epoch, request, sequence, err}) {
			s.deps.Checkpoints.Drop(s.who.ID) // the session has given back already what it held
		}
	})
}

// onHeld hears that the checkpoint is kept, or why not.
func (s *Session) onHeld(e held) {
	k := &s.keep
	if e.request == 0 {
		e.request = k.out
	}
	awaited := k.asked != 0 && k.asked == e.request
	if k.out == e.request {
		k.out = 0
	}
	switch present := e.source == s.wish.Epoch; {
	case e.err != nil && !(present && awaited):
		return // nobody waits for it any more
	case !present: // it may be beyond the cut, and the one before is lost
		k.epoch = 0
		return
	case e.err != nil:
		s.noCheckpoint(e.err)
		return
	}
	if k.peer != nil && k.peer != k.place {
		k.peer.Discard(s.who.ID)
	}
	k.epoch, k.sequence, k.peer, k.failures = e.source, e.sequence, k.place, 0
	s.deps.Turns.made.Add(1)
	if awaited {
		k.stop()
	}
}

// cutAt forgets a checkpoint that is beyond the end of its worker's tokens: what the worker made after them is no part of
// the stream.
func (k *checkpoint) cutAt(sequence uint64) {
	if k.sequence > sequence {
		k.epoch = 0
	}
}

// noCheckpoint notes that a checkpoint failed. The one before stays.
func (s *Session) noCheckpoint(err error) {
	if s.keep.failures == 0 {
		s.log.Warn("no checkpoint of the engine's state; trying again, less often", zap.Error(err))
	}
	s.keep.failures++
	s.deps.Turns.failed.Add(1)
	s.keep.stop()
}

// checkpointFor returns where a new worker finds the engine's state, or nil where there is none.
func (s *Session) checkpointFor(l *pool.Link) *wirepb.Fetch {
	k := &s.keep
	if k.epoch == 0 || !l.Stateful() || k.peer != nil && !k.peer.Up() {
		return nil
	}
	addr, keeper := s.deps.Checkpoints.Addr(l)
	if k.peer != nil {
		addr, keeper = k.peer.MgmtAddr(), k.peer.Worker()
	}
	token, err := s.allow(k.peer, wirepb.Purpose_PURPOSE_STATE_TRANSFER, keeper, l.Worker(), k.epoch, s.wish.Epoch)
	if err != nil {
		s.log.Warn("the checkpoint cannot be used", zap.Error(err))
		return nil
	}
	return &wirepb.Fetch{
		Session: s.who.ID, Epoch: s.wish.Epoch, Addr: addr, Token: token, Sequence: k.sequence, AtDirector: k.peer == nil,
		TimeoutMs: uint64(s.cfg.TransferTimeout.Milliseconds() / 2), // the rest is for the engine to start over
	}
}

// forgetCheckpoint gives back what a checkpoint holds.
func (s *Session) forgetCheckpoint() {
	k := &s.keep
	k.stop()
	if k.captures > 0 {
		s.deps.Checkpoints.Drop(s.who.ID)
	}
	for _, keeper := range []*pool.Link{k.peer, k.place} {
		if keeper != nil {
			keeper.Discard(s.who.ID)
		}
	}
}
