package quicnet

import (
	"context"
	"net"
)

// Network is everything that touches a network, so that a whole cluster can run on a simulated one.
// OS is the real one.
type Network interface {
	// ListenPacket binds a UDP address ("host:port", host may be empty) to serve on.
	ListenPacket(addr string) (net.PacketConn, error)
	// DialPacket returns a fresh UDP socket for talking to addr alone, and addr resolved. On a real network
	// the socket is connected, so that ECONNREFUSED is seen.
	DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error)
	// ListenStream binds a TCP address, for tethers and HTTP.
	ListenStream(addr string) (net.Listener, error)
	// DialStream opens a TCP connection, for tethers.
	DialStream(ctx context.Context, addr string) (net.Conn, error)
	// Resolve returns every address ("ip:port") that a "host:port" stands for.
	Resolve(ctx context.Context, addr string) ([]string, error)
}
