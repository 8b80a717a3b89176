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
	return &impairedConn{PacketConn: conn, net: n}, nil
}

// DialPacket opens a UDP socket for talking to addr.
func (n *Impaired) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	conn, remote, err := n.Network.DialPacket(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	return &impairedConn{PacketConn: conn, net: n}, remote, nil
}

func (n *Impaired) lost() bool {
	return n.dropAll.Load() || n.loss > 0 && rand.Float64() < n.loss
}

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

// SetReadBuffer and SetWriteBuffer exist because quic-go asks for large buffers and complains where it cannot.
func (c *impairedConn) SetReadBuffer(n int) error  { return setBuffer(c.PacketConn, n, true) }
func (c *impairedConn) SetWriteBuffer(n int) error { return setBuffer(c.PacketConn, n, false) }

func setBuffer(conn net.PacketConn, n int, read bool) error {
	b, ok := conn.(interface {
		SetReadBuffer(n int) error
		SetWriteBuffer(n int) error
	})
	switch {
	case !ok:
		return nil
	case read:
		return b.SetReadBuffer(n)
	default:
		return b.SetWriteBuffer(n)
	}
}
