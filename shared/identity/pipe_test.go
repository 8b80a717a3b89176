package identity_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// pipe is a net.Pipe whose writes do not wait for the reader, as those of a network do not: with an alert of one
// end and session tickets of the other both ends of a net.Pipe would write, and wait for ever.
func pipe() (a, b net.Conn) {
	there, back := newHalf(), newHalf()
	return &end{in: back, out: there}, &end{in: there, out: back}
}

type end struct{ in, out *half }

func (e *end) Read(p []byte) (int, error)       { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error)      { return e.out.write(p) }
func (e *end) LocalAddr() net.Addr              { return &net.IPAddr{} }
func (e *end) RemoteAddr() net.Addr             { return &net.IPAddr{} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

// half is one direction. What was written before close can still be read.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     bytes.Buffer
	closed  bool
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.Len() == 0 && !h.closed {
		h.changed.Wait()
	}
	return h.buf.Read(p) // io.EOF if empty
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.changed.Broadcast()
	return h.buf.Write(p)
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.changed.Broadcast()
}
