package mgmt

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/peer"
)

// connections are the open TCP connections of a MGMT port: no more than most, and of one address no more than mostOfOne,
// so that others always get in. A new one is never refused, another one goes for it. It is safe for concurrent use.
type connections struct {
	most, mostOfOne int

	mu   sync.Mutex
	open map[*conn]struct{}
}

// newConnections returns a table for a process that may have so many descriptors.
func newConnections(descriptors uint64) *connections {
	most := int(max(8, min(256, descriptors/4)))
	return &connections{most: most, mostOfOne: most * 3 / 4, open: map[*conn]struct{}{}}
}

// admit adds a connection, and closes another one if there would be too many.
func (t *connections) admit(inner net.Conn) *conn {
	c := &conn{Conn: inner, table: t, from: peer.Of(inner.RemoteAddr())}
	c.progressed()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.count(c.from) >= t.mostOfOne:
		t.evict(func(other *conn) bool { return other.from == c.from })
	case len(t.open) >= t.most:
		t.evict(func(*conn) bool { return true })
	}
	t.open[c] = struct{}{}
	return c
}

// makeRoom closes one connection, if there is any: its descriptor is needed.
func (t *connections) makeRoom() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.evict(func(*conn) bool { return true })
}

// evict closes the least useful connection among some: an idle one, the longest idle first, else the one whose last
// progress is the longest ago, those of operators last. t.mu is held.
func (t *connections) evict(among func(*conn) bool) {
	var least *conn
	for c := range t.open {
		if among(c) && (least == nil || c.lessUseful(least)) {
			least = c
		}
	}
	if least != nil {
		delete(t.open, least)
		_ = least.Conn.Close() // whoever reads or writes it gets the error
	}
}

// count returns how many connections an address has. t.mu is held.
func (t *connections) count(from netip.Prefix) int {
	n := 0
	for c := range t.open {
		if c.from == from {
			n++
		}
	}
	return n
}

// changed is told by the HTTP server what a connection is doing.
func (t *connections) changed(c *conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.idle = state == http.StateIdle
}

// trust notes that a connection is an operator's.
func (t *connections) trust(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.trusted = true
}

// remove forgets a connection that is closed.
func (t *connections) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

// chunkTimeout is how long a peer may take to read chunk bytes, so that it does not keep what waits for it for ever.
const (
	chunk        = 64 << 10
	chunkTimeout = 5 * time.Second
)
