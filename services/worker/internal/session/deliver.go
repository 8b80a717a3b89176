package session

import (
	"context"

	"github.com/connswap/connswap/shared/wire"
)

// outlet is an Outlet for as long as it is the session's.
type outlet struct {
	Outlet
	taken context.Context // ends with that
	leave context.CancelFunc
}

func newOutlet(out Outlet) *outlet {
	o := &outlet{Outlet: out}
	o.taken, o.leave = context.WithCancel(context.Background())
	return o
}

// detach takes the outlet away. s.mu is held.
func (s *Session) detach() {
	if s.out != nil {
		s.out.leave()
		s.out = nil
	}
}

// Serve has another outlet carry the session from the chunk after a sequence on: that puts out what is there at once. An error
// says that these chunks are not kept any more, or that there are none yet.
func (s *Session) Serve(out Outlet, after uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return wire.Errorf(wire.CodeStaleEpoch, "the session has ended here")
	}
	switch kept := &s.backlog; {
	case after > kept.last():
		return wire.Errorf(wire.CodeResumeAhead, "chunk %d is the last one here, wanted is what follows %d", kept.last(), after)
	case !kept.since(after, func(wire.Chunk) {}):
		return wire.Errorf(wire.CodeResumeBehind, "chunk %d is the first one that is kept, wanted is what follows %d", kept.after+1, after)
	}
	s.detach()
	s.backlog.since(after, out.PutChunk)
	s.out = newOutlet(out)
	select {
	case s.served <- struct{}{}:
	default:
	}
	return nil
}

// Leave takes the session's outlet away, if it is out: the session goes on without one, as far as it has credit.
func (s *Session) Leave(out Outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != nil && s.out.Outlet == out {
		s.detach()
	}
}

// room waits until the outlet takes a chunk; while there is none, until that can be kept for the next one. An outlet that is taken
// away keeps nobody waiting.
func (s *Session) room(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		out, full := s.out, s.backlog.full()
		s.mu.Unlock()
		switch {
		case out != nil && out.Room(out.taken) == nil, out == nil && !full:
			return context.Cause(ctx)
		case out == nil:
			select {
			case <-s.served:
			case <-ctx.Done():
			}
		}
	}
	return context.Cause(ctx)
}

// Credit lets the session make chunks up to a sequence, and forget those that its client has acknowledged. What it knows
// already, and what never was, is ignored.
func (s *Session) Credit(sequence, acknowledged uint64) {
	s.acknowledge(acknowledged)
	s.grant(sequence)
}

func (s *Session) acknowledge(sequence uint64) {
	if sequence == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence = min(sequence, s.backlog.last()); sequence > s.acked {
		s.acked = sequence
		s.backlog.forget(sequence)
	}
}

// grant raises the credit.
func (s *Session) grant(sequence uint64) {
	if sequence <= s.credit.Load() {
		return
	}
	s.credit.Store(sequence)
	select {
	case s.raised <- struct{}{}:
	default:
	}
}

// putChunk keeps a chunk and puts it out, unless the session was stopped: from then on nothing of it leaves.
func (s *Session) putChunk(chunk wire.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	s.backlog.add(chunk)
	if s.out != nil {
		s.out.PutChunk(chunk)
	}
	return nil
}

// tell is putChunk for a note.
func (s *Session) tell(n Note) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	if s.out != nil {
		s.out.Tell(n)
	}
	return nil
}

// end gives the place back and puts out the last note, once there is somebody to take it, unless the session was stopped. In
// this order: the director may fill the place at once.
func (s *Session) end(ctx context.Context, last Note) bool {
	for {
		if done, ended := s.tryEnd(last); done {
			return ended
		}
		select {
		case <-s.served:
		case <-ctx.Done():
			return false
		}
	}
}

// tryEnd is end, but for the waiting.
func (s *Session) tryEnd(last Note) (done, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return true, false
	case s.out == nil:
		return false, false
	}
	s.over = true
	s.table.remove(s, s.bytes)
	s.out.Tell(last)
	s.detach()
	return true, true
}
