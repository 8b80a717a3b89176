package simtest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// ListenPacket binds a UDP port of the host. Port 0 asks for any free one.
func (h *Host) ListenPacket(addr string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port, err := h.bind("udp", addr, h.packetPortTaken)
	if err != nil {
		return nil, err
	}
	return newPacketConn(h, port, netip.AddrPort{}), nil
}

// DialPacket returns a socket for talking to addr alone. If nobody listens there any more, reading from it
// returns ECONNREFUSED, one round trip after the packet that found out.
func (h *Host) DialPacket(_ context.Context, addr string) (net.PacketConn, net.Addr, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	remote, err := h.resolveOne("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	port, err := h.bind("udp", ":0", h.packetPortTaken)
	if err != nil {
		return nil, nil, err
	}
	return newPacketConn(h, port, remote), net.UDPAddrFromAddrPort(remote), nil
}

// ListenStream binds a TCP port of the host. Port 0 asks for any free one.
func (h *Host) ListenStream(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port, err := h.bind("tcp", addr, h.streamPortTaken)
	if err != nil {
		return nil, err
	}
	return newListener(h, port), nil
}

// DialStream opens a TCP connection. Nobody answers on a cut path, or for a crashed host: then only ctx ends
// the wait.
func (h *Host) DialStream(ctx context.Context, addr string) (net.Conn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	remote, err := h.resolveOne("tcp", addr)
	if err != nil {
		return nil, err
	}
	port, err := h.bind("tcp", ":0", h.streamPortTaken)
	if err != nil {
		return nil, err
	}
	s := newStream(h, netip.AddrPortFrom(h.ip, port), remote)
	if err := s.connect(ctx); err != nil {
		return nil, s.opError("dial", err)
	}
	return s, nil
}

// Resolve returns the addresses of the host, or of all hosts, that have the name in addr. It takes no time and
// knows no faults.
func (h *Host) Resolve(_ context.Context, addr string) ([]string, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	all, err := h.resolve(addr)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(all))
	for i, a := range all {
		addrs[i] = a.String()
	}
	return addrs, nil
}

func (h *Host) resolveOne(network, addr string) (netip.AddrPort, error) {
	all, err := h.resolve(addr)
	if err != nil {
		return netip.AddrPort{}, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return all[0], nil
}

// resolve returns at least one address, or an error.
func (h *Host) resolve(addr string) ([]netip.AddrPort, error) {
	name, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if h.isSelf(name) {
		return []netip.AddrPort{netip.AddrPortFrom(h.ip, port)}, nil
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	hosts := h.net.names[name]
	if len(hosts) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	all := make([]netip.AddrPort, len(hosts))
	for i, to := range hosts {
		all[i] = netip.AddrPortFrom(to.ip, port)
	}
	return all, nil
}

// isSelf reports whether name can only mean this host.
func (h *Host) isSelf(name string) bool {
	switch name {
	case "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", h.name:
		return true
	}
	return name == h.ip.String()
}

func splitAddr(addr string) (name string, port uint16, err error) {
	name, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	return name, uint16(number), nil
}

var (
	errDead   = errors.New("the simulated process is dead")
	errInUse  = os.NewSyscallError("bind", syscall.EADDRINUSE)
	errNoAddr = os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
)

// bind returns the port that a new socket shall have.
func (h *Host) bind(network, addr string, taken func(uint16) bool) (uint16, error) {
	fail := func(err error) (uint16, error) {
		return 0, &net.OpError{Op: "listen", Net: network, Addr: textAddr{network, addr}, Err: err}
	}
	name, port, err := splitAddr(addr)
	switch {
	case err != nil:
		return fail(err)
	case h.net.closed:
		return fail(net.ErrClosed)
	case h.dead:
		return fail(errDead)
	case !h.isSelf(name):
		return fail(errNoAddr)
	case port == 0:
		return h.freePort(taken), nil
	case taken(port):
		return fail(errInUse)
	default:
		return port, nil
	}
}

// freePort returns a port that was not used lately: what is under way to a closed socket meets no new one.
func (h *Host) freePort(taken func(uint16) bool) uint16 {
	for {
		h.lastPort = max(h.lastPort+1, firstEphemeral)
		if !taken(h.lastPort) {
			return h.lastPort
		}
	}
}

func (h *Host) packetPortTaken(port uint16) bool { return h.packets[port] != nil }

func (h *Host) streamPortTaken(port uint16) bool {
	return h.listeners[port] != nil || h.dialled[port]
}

// textAddr is an address that was asked for.
type textAddr struct{ network, text string }

func (a textAddr) Network() string { return a.network }
func (a textAddr) String() string  { return a.text }
