package transfer

import (
	"context"
	"errors"
	"slices"

	"github.com/connswap/connswap/shared/wire"
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

// use is a token that pulls a snapshot: from its first Pull until PullDone, or until the snapshot is gone.
type use struct {
	id     string                  // of the token
	cancel context.CancelCauseFunc // ends the present stream
}

func (e *entry) find(id string) int {
	return slices.IndexFunc(e.uses, func(u use) bool { return u.id == id })
}

// used reports whether a token is pulling one of the session's snapshots.
func (s *Store) used(director string, session uint64, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range both(director, session) {
		if e, ok := s.entries[key]; ok && e.find(id) >= 0 {
			return true
		}
	}
	return false
}

// both are the places where a session's snapshot may be, the better first.
func both(director string, session uint64) [2]Key {
	return [2]Key{{director, session, false}, {director, session, true}}
}

// begin notes that a token pulls the snapshot of a key. One that does so again must have begun with this very
// snapshot, and what it began before ends. cancel is called when the stream shall end. There is no snapshot to
// pull if it is nil.
func (s *Store) begin(key Key, id string, again bool, cancel context.CancelCauseFunc) *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		return nil
	}
	at := e.find(id)
	switch {
	case again != (at >= 0):
		return nil
	case again:
		e.end(at, errSuperseded)
	case len(e.uses) == maxUses:
		e.end(0, errSuperseded)
	}
	e.uses = append(e.uses, use{id, cancel})
	return e.snapshot
}

func (e *entry) end(at int, cause error) {
	e.uses[at].cancel(cause)
	e.uses = slices.Delete(e.uses, at, at+1)
}

// finish notes that a snapshot has arrived: the token is over, and what was taken for a move has served.
func (s *Store) finish(key Key, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		return
	}
	at := e.find(id)
	switch {
	case at < 0: // that was for an older snapshot
	case key.Checkpoint:
		e.end(at, nil)
	default:
		s.remove(key)
	}
}

// revoke ends all uses of a session's snapshots.
func (s *Store) revoke(director string, session uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range both(director, session) {
		if e, ok := s.entries[key]; ok {
			e.endAll(errRevoked)
		}
	}
}

func (e *entry) endAll(cause error) {
	for _, u := range e.uses {
		u.cancel(cause)
	}
	e.uses = nil
}
