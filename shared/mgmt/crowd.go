package mgmt

import (
	"net"
	"net/netip"
	"sync"

	"github.com/connswap/connswap/shared/peer"
)

// Bounds on the connections over QUIC of a MGMT port. Each is of a node with a certificate, and most nodes have one.
const (
	maxConns      = 8192
	maxConnsOfOne = 2048 // of one address
)

// crowd counts connections by the address that they come from. It is safe for concurrent use.
type crowd struct {
	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

// enter counts a connection in, unless there are too many. The function that it returns counts it out.
func (c *crowd) enter(addr net.Addr) (leave func(), ok bool) {
	from := peer.Of(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxConns || c.of[from] >= maxConnsOfOne {
		return nil, false
	}
	if c.of == nil {
		c.of = map[netip.Prefix]int{}
	}
	c.all++
	c.of[from]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.of[from]--; c.of[from] == 0 {
			delete(c.of, from)
		}
	}, true
}
