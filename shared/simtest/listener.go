package simtest

import (
	"net"
	"net/netip"
	"sync"
)

// backlog is how many connections wait to be accepted; further ones are refused.
const backlog = 128

// listener is a listening TCP socket, guarded by net.mu.
type listener struct {
	host    *Host
	local   netip.AddrPort
	cond    sync.Cond
	waiting []*stream
	closed  bool
}

var _ net.Listener = (*listener)(nil)

func newListener(h *Host, port uint16) *listener {
	l := &listener{host: h, local: netip.AddrPortFrom(h.ip, port)}
	l.cond.L = &h.net.mu
	h.listeners[port] = l
	return l
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	for {
		switch {
		case l.closed:
			return nil, l.closedError("accept")
		case l.host.frozen:
		case len(l.waiting) > 0:
			s := l.waiting[0]
			l.waiting = l.waiting[1:]
			return s, nil
		}
		l.cond.Wait()
	}
}

// Close releases the port. Connections that nobody accepted are reset.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return l.closedError("close")
	}
	l.close()
	return nil
}

func (l *listener) close() {
	l.closed = true
	delete(l.host.listeners, l.local.Port())
	for _, s := range l.waiting {
		s.abort()
	}
	l.waiting = nil
	l.cond.Broadcast()
}

// Addr returns a *net.TCPAddr with the host's IP.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.local) }

func (l *listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}
