package quicnet

import (
	"context"
	"fmt"
	"net"
)

// OS is the operating system's network.
type OS struct{}

var _ Network = OS{}

// ListenPacket binds a UDP address.
func (OS) ListenPacket(addr string) (net.PacketConn, error) { return net.ListenPacket("udp", addr) }

// ListenStream binds a TCP address.
func (OS) ListenStream(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// DialPacket returns a connected UDP socket: when nothing listens on the other side any more, the kernel
// reports ECONNREFUSED on it, long before a timeout would.
func (OS) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return nil, nil, fmt.Errorf("dialling %s: got a %T", addr, conn)
	}
	return connectedUDP{udp}, udp.RemoteAddr(), nil
}

// DialStream opens a TCP connection.
func (OS) DialStream(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// Resolve looks the host up.
func (OS) Resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "localhost"
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip, port)
	}
	return addrs, nil
}

// connectedUDP lets quic-go, which names the destination of each packet, use a connected socket, which
// must not be told. It stays an OOB-capable connection, so that quic-go can batch its system calls.
type connectedUDP struct{ *net.UDPConn }

func (c connectedUDP) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

func (c connectedUDP) WriteMsgUDP(b, oob []byte, _ *net.UDPAddr) (n, oobn int, err error) {
	return c.UDPConn.WriteMsgUDP(b, oob, nil)
}
