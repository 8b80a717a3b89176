package simtest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// stream is one end of a TCP connection, guarded by net.mu.
type stream struct {
	net     *Net
	host    *Host
	serial  uint64 // unique in the Net
	local   netip.AddrPort
	remote  netip.AddrPort
	out     *flow   // nil if nobody has the address remote
	peer    *stream // nil until the other machine has answered
	dialled bool

	cond        sync.Cond
	established bool
	unread      []byte
	unreadSent  int   // bytes sent that the peer has not read
	ended       bool  // the peer sends no more
	finished    bool  // this end sends no more
	broken      error // by a reset
	closed      bool
	readBy      deadline
	writeBy     deadline
}

var _ net.Conn = (*stream)(nil)

func newStream(h *Host, local, remote netip.AddrPort) *stream {
	n := h.net
	n.serial++
	s := &stream{net: n, host: h, serial: n.serial, local: local, remote: remote, out: n.flow("tcp", h, local, remote)}
	s.cond.L = &n.mu
	h.streams[s.serial] = s
	return s
}

// connect opens the connection and waits until it is open, refused, or ctx ended.
func (s *stream) connect(ctx context.Context) error {
	s.dialled = true
	s.host.dialled[s.local.Port()] = true
	if s.out != nil {
		s.net.send(s.out, opening{s})
	}
	stop := context.AfterFunc(ctx, func() {
		s.net.mu.Lock()
		defer s.net.mu.Unlock()
		s.cond.Broadcast()
	})
	defer stop()
	for {
		switch {
		case s.broken != nil:
			s.close()
			return os.NewSyscallError("connect", syscall.ECONNREFUSED)
		case s.closed:
			return net.ErrClosed
		case ctx.Err() != nil:
			s.abort()
			return ctx.Err()
		case s.established && !s.host.frozen:
			return nil
		}
		s.cond.Wait()
	}
}

// Read returns what has arrived; io.EOF after the peer's end, ECONNRESET after a reset.
func (s *stream) Read(p []byte) (int, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, s.opError("read", net.ErrClosed)
		case len(p) == 0:
			return 0, nil
		case s.readBy.passed():
			return 0, s.opError("read", os.ErrDeadlineExceeded)
		case s.host.frozen:
		case len(s.unread) > 0:
			return s.take(p), nil
		case s.broken != nil:
			return 0, s.opError("read", s.broken)
		case s.ended:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

// take copies unread bytes to p, and lets the peer send as many more.
func (s *stream) take(p []byte) int {
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	s.peer.unreadSent -= n
	s.peer.cond.Broadcast()
	return n
}

// Write sends p. It waits while the peer has too much to read.
func (s *stream) Write(p []byte) (int, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	written := 0
	for {
		switch room := s.net.opts.Buffer - s.unreadSent; {
		case s.closed:
			return written, s.opError("write", net.ErrClosed)
		case s.broken != nil, s.finished:
			return written, s.opError("write", os.NewSyscallError("write", syscall.EPIPE))
		case s.writeBy.passed():
			return written, s.opError("write", os.ErrDeadlineExceeded)
		case written == len(p):
			return written, nil
		case room > 0:
			written += s.push(p[written:min(len(p), written+room)])
			continue
		}
		s.cond.Wait()
	}
}

// push sends one segment.
func (s *stream) push(p []byte) int {
	s.unreadSent += len(p)
	s.net.send(s.out, &segment{to: s.peer, data: append([]byte(nil), p...)})
	return len(p)
}

// CloseWrite tells the peer that nothing more comes. Reading goes on.
func (s *stream) CloseWrite() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.closed {
		return s.opError("close", net.ErrClosed)
	}
	s.finish()
	return nil
}

func (s *stream) finish() {
	if s.finished || s.peer == nil || s.broken != nil {
		return
	}
	s.finished = true
	s.net.send(s.out, &segment{to: s.peer, end: true})
}

// Close ends the connection: the peer reads io.EOF, or ECONNRESET if this end had not read everything.
func (s *stream) Close() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.closed {
		return s.opError("close", net.ErrClosed)
	}
	s.close()
	return nil
}

func (s *stream) close() {
	if len(s.unread) > 0 || !s.established {
		s.abort()
		return
	}
	s.finish()
	s.release()
}

// abort closes this end and resets the other.
func (s *stream) abort() {
	if s.closed {
		return
	}
	if s.peer != nil && s.broken == nil {
		s.net.send(s.out, &segment{to: s.peer, reset: true})
	}
	s.release()
}

func (s *stream) release() {
	s.closed = true
	s.unread = nil
	s.readBy.stop()
	s.writeBy.stop()
	delete(s.host.streams, s.serial)
	if s.dialled {
		delete(s.host.dialled, s.local.Port())
	}
	s.cond.Broadcast()
}

// LocalAddr returns a *net.TCPAddr.
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr returns a *net.TCPAddr.
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, &s.readBy, &s.writeBy) }

// SetReadDeadline makes Read, also one under way, fail at t with os.ErrDeadlineExceeded.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.readBy) }

// SetWriteDeadline makes Write, also one under way, fail at t with os.ErrDeadlineExceeded.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.writeBy) }

func (s *stream) setDeadlines(t time.Time, deadlines ...*deadline) error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.closed {
		return s.opError("set", net.ErrClosed)
	}
	for _, d := range deadlines {
		d.set(t, &s.cond)
	}
	return nil
}

func (s *stream) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

var errReset = os.NewSyscallError("read", syscall.ECONNRESET)

// opening asks a machine for a connection (TCP's SYN).
type opening struct{ from *stream }

func (opening) size() int { return 0 }

func (o opening) arrive(p *parcel) {
	host, n := p.flow.path.to, o.from.net
	n.fingerprint(p, nil)
	l := host.listeners[p.flow.to.Port()]
	switch {
	case o.from.closed:
	case l != nil && len(l.waiting) < backlog:
		s := newStream(host, p.flow.to, p.flow.from)
		s.established, s.peer, o.from.peer = true, o.from, s
		n.launch(s.out, &segment{to: o.from, accepted: true})
		l.waiting = append(l.waiting, s)
		l.cond.Signal()
	case !n.opts.Silent:
		n.launch(n.flow("tcp", host, p.flow.to, p.flow.from), &segment{to: o.from, reset: true})
	}
}

// segment is a piece of a stream, or its end, or a word of the machine about it.
type segment struct {
	to       *stream
	data     []byte
	accepted bool // the connection is open
	end      bool // nothing follows
	reset    bool // the connection is gone
}

func (x *segment) size() int { return len(x.data) }

func (x *segment) arrive(p *parcel) {
	s := x.to
	s.net.fingerprint(p, x.data)
	switch {
	case s.closed:
		x.bounce()
		return
	case x.reset:
		s.broken = errReset
	case x.accepted:
		s.established = true
	case x.end:
		s.ended = true
	default:
		s.unread = append(s.unread, x.data...)
	}
	s.cond.Broadcast()
}

// bounce resets a peer that still sends to a closed end.
func (x *segment) bounce() {
	s := x.to
	if len(x.data) > 0 && s.peer != nil {
		s.net.launch(s.out, &segment{to: s.peer, reset: true})
	}
}
