package linktest

import (
	"context"
	"sync"
)

// stream carries bytes to one reader, which blocks until there are some. Writers can wait until the reader has acted on
// what they wrote: it has come back for more, and found nothing.
type stream struct {
	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, whenever something below changes
	buf     []byte
	hungry  bool // the reader waits, and has acted on all that came before
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

// wake is called with s.mu held.
func (s *stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) put(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf, s.hungry = append(s.buf, b...), false
	s.wake()
}

// say puts b and waits until the reader has acted on it, or ctx ends.
func (s *stream) say(ctx context.Context, b []byte) error {
	s.put(b)
	return s.wait(ctx, func() bool { return s.hungry && len(s.buf) == 0 })
}

func (s *stream) read(ctx context.Context, p []byte) (n int, err error) {
	err = s.wait(ctx, func() bool {
		n = copy(p, s.buf)
		s.buf = s.buf[n:]
		if n == 0 && !s.hungry {
			s.hungry = true
			s.wake()
		}
		return n > 0
	})
	return n, err
}

// wait returns once done, which is called with s.mu held, or with the cause of ctx's end.
func (s *stream) wait(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		over, changed := done(), s.changed
		s.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
