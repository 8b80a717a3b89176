package session

import (
	"errors"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

var _ pool.Placed = (*Session)(nil)

// Token journals one token and queues it for the client, if its epoch is the session's own. The tokens of an
// attempt that is being verified are held; all others are dropped, that is the fence.
func (s *Session) Token(t wire.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f := &s.flow; {
	case t.Epoch == 0:
		f.fenced++
	case (t.Epoch == f.epoch || t.Epoch == f.pending) && (len(t.Text) == 0 || t.Sequence > uint64(s.request.GetMaxTokens())):
		s.fence() // more than was asked for, or tokens that no bound would ever stop
		s.inbox.put(workerLost{t.Epoch, link.CauseProtocol})
	case t.Epoch == f.epoch:
		s.accept(t)
	case t.Epoch == f.pending:
		s.hold(t)
	default:
		f.fenced++
	}
}

// accept takes a token of the present epoch. s.mu is held.
func (s *Session) accept(t wire.Token) {
	f := &s.flow
	if t.Sequence > f.client.granted {
		s.fence()
		s.inbox.put(workerLost{t.Epoch, link.CauseProtocol})
		return
	}
	switch err := f.journal.Append(t.Sequence, t.Text); {
	case errors.Is(err, session.ErrFull):
		s.fence()
		s.inbox.put(full{t.Epoch})
		return
	case err != nil:
		s.fence()
		s.inbox.put(workerLost{t.Epoch, link.CauseProtocol})
		return
	}
	f.pace.token(s.deps.Clock.Now())
	f.client.queued = t.Sequence
	if !f.client.gone {
		f.client.out = wire.AppendToken(f.client.out, t)
	}
	if f.armed {
		f.armed = false
		s.inbox.put(crossed{time.Now()})
	}
}

// hold keeps a token of the attempt that is being verified. s.mu is held.
func (s *Session) hold(t wire.Token) {
	f := &s.flow
	next := f.journal.Len() + uint64(len(f.held)) + 1
	if !f.begun || t.Sequence != next || t.Sequence > f.client.granted {
		f.pending, f.held = 0, nil
		s.inbox.put(workerLost{t.Epoch, link.CauseProtocol})
		return
	}
	f.held = append(f.held, append([]byte(nil), t.Text...))
	if len(f.held) == 1 {
		s.inbox.put(firstToken{t.Epoch})
	}
}

// fence makes sure that nothing is accepted any more, from anybody. s.mu is held.
func (s *Session) fence() {
	s.flow.epoch, s.flow.pending, s.flow.held, s.flow.begun = 0, 0, nil, false
}

// Flush hands what was accepted to the client, and returns what the worker behind l may send now, or nil. If the
// session has moved on since l's reader took its tokens, the grant goes where it belongs.
func (s *Session) Flush(l *link.Link) *wirepb.Credit_Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.push()
	grant := s.credit()
	if grant != nil && l != s.flow.link {
		s.flow.link.Grant(grant)
		return nil
	}
	return grant
}

// credit returns a grant when half a window or more has become free. s.mu is held.
func (s *Session) credit() *wirepb.Credit_Grant {
	f, window := &s.flow, uint64(s.cfg.Window)
	if f.epoch == 0 || f.client.sent+window < f.client.granted+(window+1)/2 {
		return nil
	}
	f.client.granted = f.client.sent + window
	f.pace.touch(s.deps.Clock.Now())
	return &wirepb.Credit_Grant{Session: s.who.ID, Epoch: f.epoch, Sequence: f.client.granted}
}

// Begun notes that the pending attempt is ready; the owner verifies it.
func (s *Session) Begun(m *wirepb.Begin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.GetEpoch() != 0 && m.GetEpoch() == s.flow.pending {
		s.flow.begun = true
		s.inbox.put(begun{m})
	}
}

// Ended passes the end of an attempt on.
func (s *Session) Ended(m *wirepb.End) { s.lastWord(m.GetEpoch(), ended{m}) }

// Failed passes the failure of an attempt on.
func (s *Session) Failed(m *wirepb.Fail) { s.lastWord(m.GetEpoch(), failed{m}) }

// Refused passes a worker's refusal on.
func (s *Session) Refused(m *wirepb.Refused) { s.lastWord(m.GetEpoch(), refused{m}) }

// lastWord passes on what ends an attempt, once, and only of the newest ones.
func (s *Session) lastWord(epoch uint64, event any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f := &s.flow; {
	case epoch == f.wish.Epoch && epoch > f.heard:
		f.heard = epoch
	case f.plan != nil && epoch == f.plan.Epoch && epoch > f.planHeard:
		f.planHeard = epoch
	default:
		return
	}
	s.inbox.put(event)
}

// Prepared passes on how far the target of a planned swap is. However often it says so, one event waits for the owner.
func (s *Session) Prepared(m *wirepb.Prepared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	if f.plan == nil || m.GetEpoch() != f.plan.Epoch {
		return
	}
	waits := f.prepared != nil
	f.prepared = m
	if !waits {
		s.inbox.put(prepared{})
	}
}

// Captured passes on the answer to the newest request for the engine's state. A worker answers in any order.
func (s *Session) Captured(m *wirepb.Captured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	if m.GetEpoch() != f.epoch {
		return
	}
	waits := f.captured != nil
	if waits && f.captured.GetEpoch() == m.GetEpoch() && f.captured.GetCapture() > m.GetCapture() {
		return
	}
	f.captured = m
	if !waits {
		s.inbox.put(captured{})
	}
}

// Held passes on whether a peer keeps the checkpoint.
func (s *Session) Held(m *wirepb.Held) {
	var err error
	if m.GetCode() != "" {
		err = wire.Errorf(wire.Code(m.GetCode()), "%s", m.GetMessage())
	}
	s.inbox.put(held{source: m.GetSourceEpoch(), sequence: m.GetSequence(), err: err})
}

// Granted passes a place on.
func (s *Session) Granted(w *pool.Waiter, l *link.Link) { s.inbox.put(granted{w, l}) }

// Waiting passes on that there is no place.
func (s *Session) Waiting(w *pool.Waiter, reason string) { s.inbox.put(waiting{w, reason}) }

// Lost fences the session at once if the lost epoch is its present one, or the one that it is moving to. The target of
// a planned swap before its cut is no loss to the session.
func (s *Session) Lost(epoch uint64, cause link.Cause) *pool.Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	if f.plan != nil && epoch == f.plan.Epoch {
		f.plan = nil
		s.inbox.put(targetLost{epoch, cause})
		return nil
	}
	if f.closed || epoch != f.wish.Epoch {
		return nil
	}
	s.fence()
	s.inbox.put(workerLost{epoch, cause})
	return s.wishFor("")
}

// wishFor makes the wish for the session's next worker. s.mu is held.
func (s *Session) wishFor(avoid string) *pool.Waiter {
	f := &s.flow
	kind := migration.Failover
	if f.worker == "" {
		kind = migration.Placement
	}
	f.highest++
	f.wish = s.newWish(kind, f.highest)
	f.wish.Avoid = avoid
	return f.wish
}

// newWish is called with s.mu held.
func (s *Session) newWish(kind migration.Kind, epoch uint64) *pool.Waiter {
	return pool.NewWaiter(pool.Waiter{
		Session: s, ID: s.who.ID, Started: s.started.Unix(), Priority: s.request.GetPriority(),
		Epoch: epoch, Kind: kind, Fingerprint: s.flow.fingerprint,
	})
}
