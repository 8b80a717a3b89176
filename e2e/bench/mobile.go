package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
)

// mobile is the network of a client that goes out of reach, changes its address, or loses its sockets.
type mobile struct {
	quicnet.Network

	mu    sync.Mutex
	down  bool
	conns map[*mobileConn]bool
}

func newMobile() *mobile { return &mobile{Network: quicnet.OS{}, conns: map[*mobileConn]bool{}} }

// cut has all packets lost, until it is called with false.
func (m *mobile) cut(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *mobile) isDown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

// all returns the sockets that there are.
func (m *mobile) all() (conns []*mobileConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		conns = append(conns, c)
	}
	return conns
}

// move gives each socket another local address.
func (m *mobile) move(ctx context.Context) error {
	for _, c := range m.all() {
		next, _, err := m.Network.DialPacket(ctx, c.remote)
		if err != nil {
			return err
		}
		c.replace(next)
	}
	return nil
}

// lose takes all sockets away, as the operating system does with those of an address that is gone.
func (m *mobile) lose() {
	for _, c := range m.all() {
		c.lose()
	}
}

// DialPacket implements quicnet.Network.
func (m *mobile) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	socket, remote, err := m.Network.DialPacket(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	c := &mobileConn{net: m, remote: addr, socket: socket}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[c] = true
	return c, remote, nil
}

// mobileConn is a socket on a mobile network.
type mobileConn struct {
	net    *mobile
	remote string

	mu       sync.Mutex
	socket   net.PacketConn
	deadline time.Time
	lost     error
}

var errAddressGone = &net.OpError{Op: "write", Net: "udp", Err: errors.New("the address is gone")}

func (c *mobileConn) present() (net.PacketConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.socket, c.lost
}

func (c *mobileConn) replace(next net.PacketConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = next.SetReadDeadline(c.deadline) // of a fresh socket
	last := c.socket
	c.socket = next
	_ = last.Close() // whoever reads from it goes on with the next
}

func (c *mobileConn) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = errAddressGone
	_ = c.socket.Close() // whoever reads from it is told
}

func (c *mobileConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		socket, lost := c.present()
		if lost != nil {
			return 0, nil, lost
		}
		n, from, err := socket.ReadFrom(b)
		now, lost := c.present()
		switch {
		case lost != nil:
			return 0, nil, lost
		case err != nil && now != socket, err == nil && c.net.isDown():
			continue
		}
		return n, from, err
	}
}

func (c *mobileConn) WriteTo(b []byte, to net.Addr) (int, error) {
	socket, lost := c.present()
	if lost != nil {
		return 0, lost
	}
	if c.net.isDown() {
		return len(b), nil
	}
	return socket.WriteTo(b, to)
}

func (c *mobileConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	socket, lost := c.present()
	if lost != nil {
		return nil // it is closed
	}
	return socket.Close()
}

func (c *mobileConn) LocalAddr() net.Addr {
	socket, _ := c.present()
	return socket.LocalAddr()
}

func (c *mobileConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.socket.SetReadDeadline(t)
}

func (c *mobileConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *mobileConn) SetWriteDeadline(t time.Time) error { return nil }
