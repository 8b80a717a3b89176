package mgmt

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/peer"
)

// fresh is how long a connection that gets on is safe: time enough to be asked something, and to answer.
const fresh = 10 * time.Millisecond

// connections are the open TCP connections of a MGMT port: no more than most, and of one address no more than mostOfOne,
// so that others always get in. A new one is never refused, another one goes for it. It is safe for concurrent use.
type connections struct {
	most, mostOfOne int

	mu    sync.Mutex
	open  map[*conn]struct{}
	freed chan struct{} // has room for one; something may go that could not before
}

// newConnections returns a table for a process that may have so many descriptors.
func newConnections(descriptors uint64) *connections {
	most := int(max(8, min(256, descriptors/4)))
	return &connections{most: most, mostOfOne: most * 3 / 4, open: map[*conn]struct{}{}, freed: make(chan struct{}, 1)}
}

// admit adds a connection, and closes another one if there would be too many. Where all of them are fresh, it waits until
// one is not; so whoever is quick is served, however many others come. It waits no longer than ctx.
func (t *connections) admit(ctx context.Context, inner net.Conn) *conn {
	c := &conn{Conn: inner, table: t, from: peer.Of(inner.RemoteAddr())}
	for {
		c.progressed()
		wait := t.try(c, ctx.Err() != nil)
		if wait <= 0 {
			return c
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.freed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// try adds a connection, or returns how long it takes until another one may go for it.
func (t *connections) try(c *conn, atOnce bool) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var least *conn
	switch {
	case t.count(c.from) >= t.mostOfOne:
		least = t.leastUseful(func(other *conn) bool { return other.from == c.from })
	case len(t.open) >= t.most:
		least = t.leastUseful(t.greedy())
	}
	if least != nil {
		if wait := fresh - least.quiet(); !least.idle && wait > 0 && !atOnce {
			return wait
		}
		t.evict(least)
	}
	t.open[c] = struct{}{}
	return 0
}

// makeRoom closes one connection, if there is any: its descriptor is needed.
func (t *connections) makeRoom() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if least := t.leastUseful(t.greedy()); least != nil {
		t.evict(least)
	}
}

// evict closes a connection. t.mu is held.
func (t *connections) evict(c *conn) {
	delete(t.open, c)
	_ = c.Conn.Close() // whoever reads or writes it gets the error
}

// leastUseful returns the least useful connection among some: an idle one, the longest idle first, else the one whose last
// progress is the longest ago, those of operators last. t.mu is held.
func (t *connections) leastUseful(among func(*conn) bool) *conn {
	var least *conn
	for c := range t.open {
		if among(c) && (least == nil || c.lessUseful(least)) {
			least = c
		}
	}
	return least
}

// greedy returns which connections are idle, or of the address that has most. t.mu is held.
func (t *connections) greedy() func(*conn) bool {
	count, most := map[netip.Prefix]int{}, 0
	for c := range t.open {
		count[c.from]++
		most = max(most, count[c.from])
	}
	return func(c *conn) bool { return c.idle || count[c.from] == most }
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

// wake tells admit that something may go.
func (t *connections) wake() {
	select {
	case t.freed <- struct{}{}:
	default:
	}
}

// changed is told by the HTTP server what a connection is doing.
func (t *connections) changed(c *conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.idle = state == http.StateIdle; c.idle {
		t.wake()
	}
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
	t.wake()
}

// chunkTimeout is how long a peer may take to read chunk bytes, so that it does not keep what waits for it for ever.
const (
	chunk        = 64 << 10
	chunkTimeout = 5 * time.Second
)
