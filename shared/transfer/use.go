package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Why a stream of a transfer ends early.
var (
	errGone       = wire.Errorf(wire.CodeStateGone, "there is no such state here, or no more")
	errRevoked    = wire.Errorf(wire.CodeTokenRevoked, "the director took the token back")
	errUnwanted   = errors.New("the puller has given up")
	errSuperseded = errors.New("the puller goes on with another stream")
)

// maxUses bounds the tokens known for one snapshot. A director that gives out more has given up the first ones.
const maxUses = 8

// digest is what a secret is looked up by: how long that takes says nothing about secrets that are known.
type digest [sha256.Size]byte

// use is a token that pulls a snapshot: from its first Pull until PullDone, or until the snapshot is gone. The store's mu
// guards it.
type use struct {
	token  *wirepb.Token // never changes, as entry
	entry  *entry
	cancel context.CancelCauseFunc // ends the present stream
}

func (u *use) digest() digest { return sha256.Sum256(u.token.GetSecret()) }

// both are the places where a session's snapshot may be, the better first.
func both(director string, session uint64) [2]Key {
	return [2]Key{{director, session, false}, {director, session, true}}
}

// begin records that a token pulls its session's snapshot. cancel is called when the stream shall end. There is no snapshot
// to pull if it returns nil.
func (s *Store) begin(token *wirepb.Token, cancel context.CancelCauseFunc) *use {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range both(token.GetDirector(), token.GetSession()) {
		e, ok := s.entries[key]
		if !ok {
			continue
		}
		if len(e.uses) == maxUses {
			s.end(e.uses[0], errSuperseded)
		}
		u := &use{token: token, entry: e, cancel: cancel}
		e.uses = append(e.uses, u)
		s.uses[u.digest()] = u
		return u
	}
	return nil
}

// resume returns the use of a token that is pulling already, or nil. Its present stream ends, in favour of the one that
// cancel ends. The error is a *wire.Error for another puller.
func (s *Store) resume(secret []byte, puller string, cancel context.CancelCauseFunc) (*use, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uses[sha256.Sum256(secret)]
	if u == nil {
		return nil, nil
	}
	if target := u.token.GetTarget(); target != puller {
		return nil, wire.Errorf(wire.CodeTokenTarget, "the transfer is to %.80q, not %.80q", target, puller)
	}
	u.cancel(errSuperseded)
	u.cancel = cancel
	return u, nil
}

// finish records that a snapshot has arrived: the token is over, and what was taken for a move has served.
func (s *Store) finish(u *use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.uses[u.digest()] != u: // that was for an older snapshot
	case u.entry.key.Checkpoint:
		s.end(u, nil)
	default:
		s.remove(u.entry.key)
	}
}

// revoke ends all uses of a session's snapshots.
func (s *Store) revoke(director string, session uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range both(director, session) {
		if e, ok := s.entries[key]; ok {
			s.endAll(e, errRevoked)
		}
	}
}

// end is called with mu locked, as endAll.
func (s *Store) end(u *use, cause error) {
	u.cancel(cause)
	delete(s.uses, u.digest())
	u.entry.uses = slices.DeleteFunc(u.entry.uses, func(other *use) bool { return other == u })
}

func (s *Store) endAll(e *entry, cause error) {
	for _, u := range slices.Clone(e.uses) {
		s.end(u, cause)
	}
}
