package link

import "sync"

// sinks is who gets what the worker says. It is safe for concurrent use.
type sinks struct {
	mu       sync.Mutex
	attached map[uint64]attachment // by session
	holding  map[uint64]Holder     // by session: whose checkpoint the worker was asked to keep, until it answers
}

// attachment is a stream that was given to the worker.
type attachment struct {
	sink   Sink
	epoch  uint64
	client uint64 // the sink's
}

func (s *sinks) attach(session, epoch uint64, sink Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached[session] = attachment{sink: sink, epoch: epoch, client: sink.Client()}
}

// find returns who gets what the worker says of a session, or nil.
func (s *sinks) find(session uint64) Sink {
	sink, _ := s.findOf(session)
	return sink
}

// findOf returns the client too.
func (s *sinks) findOf(session uint64) (sink Sink, client uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attached[session]
	return a.sink, a.client
}

// detach forgets who gets what the worker says of a session, unless a newer epoch is attached.
func (s *sinks) detach(session, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached[session].epoch == epoch {
		delete(s.attached, session)
	}
}

// detachAll returns how many streams were attached.
func (s *sinks) detachAll() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.attached)
	clear(s.attached)
	return n
}

// len returns how many streams are attached.
func (s *sinks) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.attached)
}

// await notes who gets the answer to a Hold.
func (s *sinks) await(session uint64, holder Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding[session] = holder
}

// awaited returns who gets the answer to a Hold, once; or nil.
func (s *sinks) awaited(session uint64) Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := s.holding[session]
	delete(s.holding, session)
	return holder
}
