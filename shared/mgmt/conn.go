package mgmt

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// conn is one TCP connection. It notes when it last got on, and gives a peer that reads slowly a limited time. One
// goroutine at a time writes to it, as the HTTP server does.
type conn struct {
	net.Conn

	table   *connections
	from    netip.Prefix
	idle    bool         // between two requests; guarded by table.mu
	trusted bool         // an operator's; guarded by table.mu
	last    atomic.Int64 // when something was last read or written, in ns
	written atomic.Int64 // bytes, in all

	peeked  []byte        // was read to see what it is, and is still to be read; one goroutine reads at a time
	taken   int           // of the present chunk, in bytes
	waiting time.Duration // for the peer to take the present chunk
}

// lessUseful says which of two connections goes first. table.mu is held.
func (c *conn) lessUseful(other *conn) bool {
	if c.idle != other.idle {
		return c.idle
	}
	if c.trusted != other.trusted {
		return other.trusted
	}
	return c.last.Load() < other.last.Load()
}

// quiet is how long ago the connection last got on.
func (c *conn) quiet() time.Duration { return time.Since(time.Unix(0, c.last.Load())) }

func (c *conn) progressed() { c.last.Store(time.Now().UnixNano()) }

// speaksTLS waits for the first byte. One of TLS (RFC 8446 §5.1: a handshake record) begins no HTTP request.
func (c *conn) speaksTLS() (bool, error) {
	if err := c.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return false, err
	}
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return false, err
	}
	c.peeked = first[:]
	return first[0] == 0x16, c.SetReadDeadline(time.Time{})
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(p, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.progressed()
	}
	return n, err
}

// Write implements net.Conn. It fails where the peer needs longer than chunkTimeout for a chunk; the time between two
// writes does not count.
func (c *conn) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		var n int
		n, err = c.writeSome(p[:min(len(p), chunk-c.taken)])
		written, p = written+n, p[n:]
	}
	return written, err
}

// writeSome writes what belongs to the present chunk.
func (c *conn) writeSome(p []byte) (int, error) {
	start := time.Now()
	if err := c.SetWriteDeadline(start.Add(chunkTimeout - c.waiting)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.progressed()
		c.written.Add(int64(n))
	}
	c.taken += n
	c.waiting += time.Since(start)
	if c.taken == chunk {
		c.taken, c.waiting = 0, 0
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.table.remove(c)
	return c.Conn.Close()
}

// CloseWrite ends what the peer reads, while what it still sends is taken.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// tracked returns what is known of a connection that the HTTP server has.
func tracked(inner net.Conn) *conn {
	if secure, ok := inner.(*tls.Conn); ok {
		inner = secure.NetConn()
	}
	c, _ := inner.(*conn)
	return c
}

type connKey struct{}

// connOf returns the connection of a request; nil where it did not come through Serve.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}
