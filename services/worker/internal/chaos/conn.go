package chaos

import (
	"context"
	"time"

	"github.com/connswap/connswap/services/worker/internal/link"
)

// Listener returns l as a hung worker has it: while the gate is shut nothing is taken from it or its connections, and nothing
// is sent. QUIC itself goes on answering.
func (c *Chaos) Listener(l link.Listener) link.Listener {
	if c.gate == nil {
		return l
	}
	return listener{l, c.gate}
}

type listener struct {
	link.Listener
	gate *Gate
}

func (l listener) Accept(ctx context.Context) (link.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return conn{c, l.gate}, l.gate.Wait(ctx)
}

type conn struct {
	link.Conn
	gate *Gate
}

func (c conn) AcceptStream(ctx context.Context) (link.Stream, error) {
	s, err := c.Conn.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return &stream{Stream: s, writes: sendStream{SendStream: s, conn: c}}, nil
}

func (c conn) OpenUniStreamSync(ctx context.Context) (link.SendStream, error) {
	s, err := c.Conn.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return &sendStream{SendStream: s, conn: c}, nil
}

func (c conn) SendDatagram(b []byte) error {
	if err := c.wait(); err != nil {
		return err
	}
	return c.Conn.SendDatagram(b)
}

// wait waits at the gate for as long as there is a connection.
func (c conn) wait() error { return c.gate.Wait(c.Context()) }

// sendStream writes through the gate. One goroutine uses it, as any stream.
type sendStream struct {
	link.SendStream
	conn    conn
	timeout time.Duration // of the next Write; 0 for none
}

func (s *sendStream) SetWriteDeadline(t time.Time) error {
	s.timeout = 0
	if !t.IsZero() {
		s.timeout = time.Until(t)
	}
	return s.SendStream.SetWriteDeadline(t)
}

// Write counts no time at the gate against whoever does not take what is written.
func (s *sendStream) Write(b []byte) (int, error) {
	if s.conn.gate.IsShut() {
		if err := s.conn.wait(); err != nil {
			return 0, err
		}
		if s.timeout != 0 {
			if err := s.SendStream.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
				return 0, err
			}
		}
	}
	return s.SendStream.Write(b)
}

// stream reads and writes through the gate.
type stream struct {
	link.Stream
	writes sendStream
}

func (s *stream) SetWriteDeadline(t time.Time) error { return s.writes.SetWriteDeadline(t) }
func (s *stream) Write(b []byte) (int, error)        { return s.writes.Write(b) }

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if gateErr := s.writes.conn.wait(); gateErr != nil {
		return 0, gateErr
	}
	return n, err
}
