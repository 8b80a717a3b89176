package session

import (
	"errors"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// clientLeg is what is on its way to the client. It is guarded by Session.mu.
type clientLeg struct {
	stream  Stream
	out     []byte        // frames that the connection has not taken yet: at most a window of tokens
	queued  uint64        // sequence of the last token in out
	sent    uint64        // sequence of the last token that the connection took
	granted uint64        // highest sequence that the worker may send
	writing bool          // a goroutine is blocked in writing what was in out
	took    time.Duration // time, by the stall-proof clock, at which the client last took something of that
	gone    bool          // the stream failed; nothing is written any more
	last    bool          // out ends with the stream's last frame
}

// put queues a message for the client, in order with the tokens. s.mu is held.
func (c *clientLeg) put(m wire.Message) { c.out = wire.Append(c.out, m) }

// push hands out to the connection if it takes all of it at once; otherwise a goroutine writes it as the
// client's window opens. s.mu is held.
func (s *Session) push() {
	c := &s.flow.client
	if c.writing || c.gone || len(c.out) == 0 {
		return
	}
	switch err := c.stream.TryWriteAll(c.out); {
	case err == nil:
		c.out, c.sent = c.out[:0], c.queued
		if c.last {
			s.inbox.put(drained{})
		}
	case errors.Is(err, quic.ErrWouldBlock):
		c.writing, c.took = true, s.deps.Clock.Now()
		s.writers.Go(s.writeSlowly)
	default:
		s.clientFailed(err)
	}
}

// writeSlowly writes until nothing is left. The owner watches how long the client takes nothing.
func (s *Session) writeSlowly() {
	var batch []byte
	for {
		s.mu.Lock()
		c := &s.flow.client
		batch, c.out = c.out, batch[:0]
		queued := c.queued
		if len(batch) == 0 {
			c.writing = false
			if c.last {
				s.inbox.put(drained{})
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()

		err := s.writePieces(batch)

		s.mu.Lock()
		if err != nil {
			c.writing = false
			s.clientFailed(err)
			s.mu.Unlock()
			return
		}
		c.sent = queued
		s.mu.Unlock()
		s.inbox.put(relieved{})
	}
}

// writePieces writes a batch, and notes each piece that the client takes.
func (s *Session) writePieces(batch []byte) error {
	const piece = 4 << 10
	stream := s.flow.client.stream
	for len(batch) > 0 {
		n, err := stream.Write(batch[:min(piece, len(batch))])
		if err != nil {
			return err
		}
		batch = batch[n:]
		s.mu.Lock()
		s.flow.client.took = s.deps.Clock.Now()
		s.mu.Unlock()
	}
	return nil
}

// stalled reports whether the client has taken nothing for too long, by the stall-proof clock.
func (s *Session) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.flow.client
	return c.writing && s.deps.Clock.Since(c.took) >= s.cfg.ClientStall
}

// clientFailed notes that nothing reaches the client any more. s.mu is held.
func (s *Session) clientFailed(err error) {
	c := &s.flow.client
	if c.gone {
		return
	}
	c.gone, c.out = true, nil
	s.inbox.put(clientGone{err})
}
