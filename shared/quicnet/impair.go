package quicnet

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// Impaired is a network whose UDP packets get lost, for tests and simulated failures. TCP passes.
type Impaired struct {
	Network

	loss    float64
	dropAll atomic.Bool
}

// Impair returns nw with the given fraction of packets lost, each way.
func Impair(nw Network, loss float64) *Impaired { return &Impaired{Network: nw, loss: loss} }

// DropAll makes all packets vanish, both ways, until it is called with false.
func (n *Impaired) DropAll(drop bool) { n.dropAll.Store(drop) }

// ListenPacket binds a UDP address.
func (n *Impaired) ListenPacket(addr string) (net.PacketConn, error) {
	conn, err := n.Network.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	return n.wrap(conn), nil
}

// DialPacket opens a UDP socket for talking to addr.
func (n *Impaired) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	conn, remote, err := n.Network.DialPacket(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	return n.wrap(conn), remote, nil
}

// wrap keeps what conn can do: quic-go looks for that.
func (n *Impaired) wrap(conn net.PacketConn) net.PacketConn {
	if udp, ok := conn.(udpSocket); ok {
		return newImpairedUDP(udp, n)
	}
	return &impairedConn{PacketConn: conn, net: n}
}

func (n *Impaired) lost() bool {
	return n.dropAll.Load() || n.loss > 0 && rand.Float64() < n.loss
}

// impairedConn is a socket that can do no more than net.PacketConn, such as a simulated one.
type impairedConn struct {
	net.PacketConn
	net *Impaired
}

func (c *impairedConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.PacketConn.ReadFrom(p)
		if err != nil || !c.net.lost() {
			return n, addr, err
		}
	}
}

func (c *impairedConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	if c.net.lost() {
		return len(p), nil
	}
	return c.PacketConn.WriteTo(p, addr)
}
