package simtest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// flowKey names a flow: its protocol and both addresses.
type flowKey struct {
	network  string // udp, tcp or icmp
	from, to netip.AddrPort
}

// flow is what one address sends to another. Its random choices depend on nothing but the Net's seed, the two
// addresses, and how much was sent before.
type flow struct {
	flowKey
	path     *path
	reliable bool // a stream's: late instead of lost
	order    uint64
	rng      rand.PCG
	sent     uint64
	latest   time.Duration // arrival of what is not to be overtaken
}

// flow returns the flow between two addresses, or nil if no host has the address to.
func (n *Net) flow(network string, from *Host, src, dst netip.AddrPort) *flow {
	key := flowKey{network, src, dst}
	if f, ok := n.flows[key]; ok {
		return f
	}
	to, ok := n.byIP[dst.Addr()]
	if !ok {
		return nil
	}
	a, b := mix(n.seed, src, network), mix(n.seed+1, dst, network)
	f := &flow{flowKey: key, path: n.path(from, to), reliable: network == "tcp", order: a ^ b<<1}
	f.rng.Seed(a, b)
	n.flows[key] = f
	return f
}

// mix hashes an address with a seed (splitmix64).
func mix(seed uint64, addr netip.AddrPort, network string) uint64 {
	ip := addr.Addr().As4()
	x := uint64(ip[0])<<48 | uint64(ip[1])<<40 | uint64(ip[2])<<32 | uint64(ip[3])<<24
	x |= uint64(addr.Port())<<8 | uint64(network[0])
	for _, v := range [2]uint64{seed, x} {
		x ^= v + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

// chance is true with probability p.
func (f *flow) chance(p float64) bool {
	return p > 0 && float64(f.rng.Uint64()>>11)/(1<<53) < p
}

// upTo is a random duration in [0, d].
func (f *flow) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(f.rng.Uint64() % uint64(d+1))
}

// arrival draws when something sent now arrives.
func (f *flow) arrival(now time.Duration) time.Duration {
	p := f.path.Path
	at := now + max(p.Delay, 1) + f.upTo(p.Jitter)
	if f.reliable {
		at += f.retransmissions(p.Loss)
	} else if f.chance(p.Reorder) {
		return at + f.upTo(p.Delay+p.Jitter)
	}
	f.latest = max(at, f.latest+1)
	return f.latest
}

// retransmissions draws how long a segment takes that may get lost several times.
func (f *flow) retransmissions(loss float64) time.Duration {
	var late time.Duration
	for wait := retransmission; wait < time.Minute && f.chance(loss); wait *= 2 {
		late += wait
	}
	return late
}

func (f *flow) String() string { return fmt.Sprintf("%s %v > %v", f.network, f.from, f.to) }
