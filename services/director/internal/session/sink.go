package session

import (
	"errors"

	"github.com/connswap/connswap/services/director/internal/pool"
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
		s.inbox.put(workerLost{t.Epoch, pool.CauseProtocol})
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
		s.inbox.put(workerLost{t.Epoch, pool.CauseProtocol})
		return
	}
	switch err := f.journal.Append(t.Sequence, t.Text); {
	case errors.Is(err, session.ErrFull):
		s.fence()
		s.inbox.put(full{t.Epoch})
		return
	case err != nil:
		s.fence()
		s.inbox.put(workerLost{t.Epoch, pool.CauseProtocol})
		return
	}
	f.pace.token(s.deps.Clock.Now())
	f.client.queued = t.Sequence
	if !f.client.gone {
		f.client.out = wire.AppendToken(f.client.out, t)
	}
}

// hold keeps a token of the attempt that is being verified. s.mu is held.
func (s *Session) hold(t wire.Token) {
	f := &s.flow
	next := f.journal.Len() + uint64(len(f.held)) + 1
	if !f.begun || t.Sequence != next || t.Sequence > f.client.granted {
		f.pending, f.held = 0, nil
		s.inbox.put(workerLost{t.Epoch, pool.CauseProtocol})
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
func (s *Session) Flush(l *pool.Link) *wirepb.Credit_Grant {
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

// lastWord passes on what ends an attempt, once, and only of the newest one.
func (s *Session) lastWord(epoch uint64, event any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch == s.flow.highest && epoch > s.flow.heard {
		s.flow.heard = epoch
		s.inbox.put(event)
	}
}

// Granted passes a place on.
func (s *Session) Granted(w *pool.Waiter, l *pool.Link) { s.inbox.put(granted{w, l}) }

// Waiting passes on that there is no place.
func (s *Session) Waiting(w *pool.Waiter, reason string) { s.inbox.put(waiting{w, reason}) }

// Lost fences the session at once if the lost epoch is its present one, or the one that it is moving to.
func (s *Session) Lost(epoch uint64, cause pool.Cause) *pool.Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
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
	f.highest++
	f.wish = pool.NewWaiter(pool.Waiter{
		Session: s, ID: s.who.ID, Epoch: f.highest, Failover: f.worker != "", Fingerprint: f.fingerprint, Avoid: avoid,
	})
	return f.wish
}
