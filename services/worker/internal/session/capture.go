package session

import (
	"context"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// captureTimeout is how long a copy waits for an engine that is in the middle of a chunk.
const captureTimeout = 5 * time.Second

var errBusy = wire.Errorf(wire.CodeUnavailable, "the engine is in the middle of a token, and has been for %v", captureTimeout)

// Capture returns the engine's state after the chunk of that sequence. The generation waits for one copy. number is that of
// the request, for Offer.
func (s *Session) Capture(ctx context.Context, number uint64) (sequence uint64, state []byte, err error) {
	s.mu.Lock()
	c := s.capturer
	s.captures = max(s.captures, number)
	s.mu.Unlock()
	if c == nil {
		return 0, nil, wire.Errorf(wire.CodeUnavailable, "there is no state yet, or none at all")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, captureTimeout, errBusy)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
	s.mu.Lock()
	closed := s.capturer == nil
	s.mu.Unlock()
	if closed {
		return 0, nil, wire.Errorf(wire.CodeStaleEpoch, "the session has ended here")
	}
	defer s.recovered(&err)
	state, err = c.Capture(nil)
	return s.position, state, err
}

// Offer calls offer, which must not block, unless the session has ended or was asked again for a state, with a higher number.
func (s *Session) Offer(number uint64, offer func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || number < s.captures {
		return wire.Errorf(wire.CodeStaleEpoch, "a newer snapshot was asked for, or none is needed any more")
	}
	return offer()
}
