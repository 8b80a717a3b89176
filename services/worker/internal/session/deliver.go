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
	if out := s.out.Swap(nil); out != nil {
		out.leave()
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
	out.Flush()
	s.out.Store(newOutlet(out))
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
	if o := s.out.Load(); o != nil && o.Outlet == out {
		s.detach()
	}
}

// room waits until the outlet takes a chunk; while there is none, until that can be kept for the next one. An outlet that is taken
// away keeps nobody waiting.
func (s *Session) room(ctx context.Context) error {
	for ctx.Err() == nil {
		out := s.out.Load()
		switch {
		case out != nil && out.Room(out.taken) == nil, out == nil && s.keeps():
			return nil
		case out == nil:
			select {
			case <-s.served:
			case <-ctx.Done():
			}
		}
	}
	return context.Cause(ctx)
}

// keeps reports whether the next chunk can be kept without forgetting another one.
func (s *Session) keeps() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.backlog.full()
}

// roomy reports whether room would not wait.
func (s *Session) roomy() bool {
	if out := s.out.Load(); out != nil {
		return out.Room(ended) == nil
	}
	return s.keeps()
}

// ended is a context for asking without waiting.
var ended = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

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
	if out := s.out.Load(); out != nil {
		out.PutChunk(chunk)
	}
	return nil
}

// flush lets go what was put out.
func (s *Session) flush() {
	if out := s.out.Load(); out != nil {
		out.Flush()
	}
}

// tell is putChunk for a note.
func (s *Session) tell(n Note) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	if out := s.out.Load(); out != nil {
		out.Tell(n)
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
	out := s.out.Load()
	switch {
	case s.over:
		return true, false
	case out == nil:
		return false, false
	}
	s.over = true
	s.table.remove(s, s.bytes)
	out.Tell(last)
	s.detach()
	return true, true
}
