package simtest

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxPacket is the largest payload of UDP over IPv4.
const maxPacket = 65507

// packetConn is a UDP socket. All but the addresses that its process knows is guarded by net.mu.
type packetConn struct {
	net    *Net
	host   *Host
	remote netip.AddrPort // the only peer, if valid
	addr   *net.UDPAddr   // local

	local  netip.AddrPort // as others see it: addr, unless the host was rebound
	source *net.UDPAddr   // local

	cond        sync.Cond
	queue       []*datagram
	queued      int // bytes in queue
	unsentBytes int // bytes sent while the host is frozen
	refused     bool
	closed      bool
	flows       map[netip.AddrPort]*flow
	readBy      deadline
	writeBy     deadline
}

var _ net.PacketConn = (*packetConn)(nil)

// datagram is a packet under way or waiting for its reader.
type datagram struct {
	from   *packetConn
	source *net.UDPAddr
	data   []byte
}

func newPacketConn(h *Host, port uint16, remote netip.AddrPort) *packetConn {
	local := netip.AddrPortFrom(h.ip, port)
	c := &packetConn{
		net: h.net, host: h, local: local, remote: remote, addr: net.UDPAddrFromAddrPort(local),
		flows: make(map[netip.AddrPort]*flow),
	}
	c.source = c.addr
	c.cond.L = &h.net.mu
	h.packets[port] = c
	return c
}

// ReadFrom returns the next packet. It fails with ECONNREFUSED, once, after a packet of a connected socket
// was refused.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, c.opError("read", net.ErrClosed)
		case c.readBy.passed():
			return 0, nil, c.opError("read", os.ErrDeadlineExceeded)
		case c.host.frozen:
		case c.refused:
			c.refused = false
			return 0, nil, c.opError("read", os.NewSyscallError("recvfrom", syscall.ECONNREFUSED))
		case len(c.queue) > 0:
			n, from := c.dequeue(p)
			return n, from, nil
		}
		c.cond.Wait()
	}
}

// dequeue copies the first packet of the queue to p.
func (c *packetConn) dequeue(p []byte) (int, net.Addr) {
	d := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	c.queued -= len(d.data)
	n, from := copy(p, d.data), d.source
	c.net.recycle(d)
	return n, from
}

// WriteTo sends a packet. What happens to it later is no error of WriteTo. A connected socket ignores addr.
func (c *packetConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	switch {
	case c.closed:
		return 0, c.opError("write", net.ErrClosed)
	case c.writeBy.passed():
		return 0, c.opError("write", os.ErrDeadlineExceeded)
	case len(p) > maxPacket:
		return 0, c.opError("write", os.NewSyscallError("sendto", syscall.EMSGSIZE))
	}
	to, err := c.destination(addr)
	if err != nil {
		return 0, c.opError("write", err)
	}
	c.send(p, to)
	return len(p), nil
}

func (c *packetConn) destination(addr net.Addr) (netip.AddrPort, error) {
	if c.remote.IsValid() {
		return c.remote, nil
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, &net.AddrError{Err: "not a UDP address", Addr: addr.String()}
	}
	to := udp.AddrPort()
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil
}

// send puts one packet on its way, or two. What is sent to an address that nobody has is lost.
func (c *packetConn) send(p []byte, to netip.AddrPort) {
	f, known := c.flows[to]
	if !known {
		f = c.net.flow("udp", c.host, c.local, to)
		c.flows[to] = f
	}
	switch {
	case f == nil:
		c.net.stats.Cut++
		return
	case c.host.frozen && c.unsentBytes+len(p) > c.net.opts.Buffer:
		c.net.stats.Overflow++
		return
	case c.host.frozen:
		c.unsentBytes += len(p)
	}
	c.net.stats.Sent++
	c.net.send(f, c.net.datagram(c, p))
	if f.chance(f.path.Duplicate) {
		c.net.stats.Sent++
		c.net.send(f, c.net.datagram(c, p))
	}
}

// datagram returns a packet with a copy of p.
func (n *Net) datagram(from *packetConn, p []byte) *datagram {
	var d *datagram
	if last := len(n.spare) - 1; last >= 0 {
		d, n.spare = n.spare[last], n.spare[:last]
	} else {
		d = &datagram{data: make([]byte, 0, 1500)}
	}
	d.from, d.source, d.data = from, from.source, append(d.data[:0], p...)
	return d
}

// recycle keeps a packet that was read for the next one to be sent.
func (n *Net) recycle(d *datagram) {
	const most = 1 << 10
	if len(n.spare) < most && cap(d.data) <= 4096 {
		d.from, d.source = nil, nil
		n.spare = append(n.spare, d)
	}
}

func (d *datagram) size() int { return len(d.data) }

// arrive puts the packet into its socket's buffer, or tells a connected sender that there is no such socket.
func (d *datagram) arrive(p *parcel) {
	host, n := p.flow.path.to, p.flow.path.to.net
	c := host.packets[p.flow.to.Port()]
	switch {
	case c == nil || c.remote.IsValid() && c.remote != p.flow.from:
		n.stats.Refused++
		d.refuse(p)
	case c.queued+len(d.data) > n.opts.Buffer:
		n.stats.Overflow++
	default:
		n.stats.Delivered++
		n.stats.Bytes += len(d.data)
		n.fingerprint(p, d.data)
		c.queue = append(c.queue, d)
		c.queued += len(d.data)
		c.cond.Signal()
	}
}

// refuse sends back what ICMP calls port unreachable. Only connected sockets care.
func (d *datagram) refuse(p *parcel) {
	to := p.flow.path.to
	if to.net.opts.Silent || !d.from.remote.IsValid() || d.from.closed {
		return
	}
	back := to.net.flow("icmp", to, netip.AddrPortFrom(to.ip, 0), p.flow.from)
	to.net.launch(back, refusal{d.from})
}

// refusal is port unreachable (RFC 792).
type refusal struct{ to *packetConn }

func (refusal) size() int { return 0 }

func (r refusal) arrive(p *parcel) {
	r.to.net.fingerprint(p, nil)
	r.to.refused = true
	r.to.cond.Broadcast()
}

// Close releases the port and makes everyone who waits return net.ErrClosed.
func (c *packetConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.close()
	return nil
}

func (c *packetConn) close() {
	c.closed = true
	c.readBy.stop()
	c.writeBy.stop()
	delete(c.host.packets, c.local.Port())
	c.cond.Broadcast()
}

// LocalAddr returns a *net.UDPAddr with the host's IP, also for a socket bound to a port alone.
func (c *packetConn) LocalAddr() net.Addr { return c.addr }

// SetDeadline sets both deadlines.
func (c *packetConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readBy, &c.writeBy)
}

// SetReadDeadline makes ReadFrom, also one under way, fail at t with os.ErrDeadlineExceeded.
func (c *packetConn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy) }

// SetWriteDeadline makes WriteTo fail from t on.
func (c *packetConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeBy) }

func (c *packetConn) setDeadlines(t time.Time, deadlines ...*deadline) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, d := range deadlines {
		d.set(t, &c.cond)
	}
	return nil
}

// SetReadBuffer does nothing: quic-go asks for larger buffers, and complains where it cannot.
func (c *packetConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing, see SetReadBuffer.
func (c *packetConn) SetWriteBuffer(int) error { return nil }

func (c *packetConn) opError(op string, err error) error {
	e := &net.OpError{Op: op, Net: "udp", Source: c.addr, Err: err}
	if c.remote.IsValid() {
		e.Addr = net.UDPAddrFromAddrPort(c.remote)
	}
	return e
}
