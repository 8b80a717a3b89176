package connswap_test

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
)

// routeless is a network to which, while it is down, the system knows no way.
type routeless struct {
	quicnet.Network

	down atomic.Bool
}

func (n *routeless) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	if n.down.Load() {
		return nil, nil, errNoRoute
	}
	socket, remote, err := n.Network.DialPacket(ctx, addr)
	return &routelessSocket{socket, n}, remote, err
}

type routelessSocket struct {
	net.PacketConn

	net *routeless
}

var errNoRoute = &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", syscall.ENETUNREACH)}

func (s *routelessSocket) WriteTo(p []byte, addr net.Addr) (int, error) {
	if s.net.down.Load() {
		return 0, errNoRoute
	}
	return s.PacketConn.WriteTo(p, addr)
}

// TestNoRoute: where the system takes no more packets, it is the connection that is lost, and not the stream: that goes on once
// there is a way again.
func TestNoRoute(t *testing.T) {
	for range 50 { // what of it a stream notices first differs
		inWorld(t, func(w *world) {
			nw := &routeless{Network: w.client}
			down := func(down bool) func() { return func() { nw.down.Store(down) } }
			w.away(nw, false, 100*time.Millisecond, down(true), down(false))
		})
	}
}
