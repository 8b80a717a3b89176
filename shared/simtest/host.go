package simtest

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/connswap/connswap/shared/quicnet"
)

// Host is one machine that runs one process. It is the network as that process sees it.
type Host struct {
	net  *Net
	name string
	ip   netip.Addr

	// All below is guarded by net.mu.
	paths     map[*Host]*path // to other hosts
	packets   map[uint16]*packetConn
	listeners map[uint16]*listener
	streams   map[uint64]*stream // by serial
	dialled   map[uint16]bool    // ports of streams that the host opened
	lastPort  uint16             // handed out to a socket that did not ask for one

	dead     bool // no process: no sockets
	crashed  bool // no machine either: nothing answers
	frozen   bool
	isolated bool
	outbox   []parcel // sent while frozen
}

var _ quicnet.Network = (*Host)(nil)

// firstEphemeral is below the ports handed out to sockets that do not ask for one.
const firstEphemeral = 32768

func newHost(n *Net, name string, number int) *Host {
	return &Host{
		net:       n,
		name:      name,
		ip:        netip.AddrFrom4([4]byte{10, byte(number >> 16), byte(number >> 8), byte(number)}),
		paths:     make(map[*Host]*path),
		packets:   make(map[uint16]*packetConn),
		listeners: make(map[uint16]*listener),
		streams:   make(map[uint64]*stream),
		dialled:   make(map[uint16]bool),
		lastPort:  firstEphemeral,
	}
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// IP returns the host's only address.
func (h *Host) IP() netip.Addr { return h.ip }

// Kill ends the host's process. Its sockets close at once: streams end at their peers after one delay (with a
// reset if it had not read everything), and closed ports refuse what comes: a packet from a socket of
// DialPacket makes that socket return ECONNREFUSED, a DialStream fails, unless the Net is Silent.
func (h *Host) Kill() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("kill %s", h.name)
	h.dead, h.frozen, h.outbox = true, false, nil // what a stopped process would have sent was never sent
	h.vanish()
}

// Crash ends the host's machine. Nobody is told, and nothing answers any more.
func (h *Host) Crash() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("crash %s", h.name)
	h.dead, h.crashed, h.frozen, h.outbox = true, true, false, nil
	for _, p := range h.net.paths {
		if p.from == h {
			p.waiting = nil
		}
	}
	h.vanish()
}

// Restart lets a new process run after Kill or Crash: same address, new sockets.
func (h *Host) Restart() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("restart %s", h.name)
	h.dead, h.crashed = false, false
}

// Freeze stops the host's traffic, as SIGSTOP would by stopping its process. What it sends has to wait; what comes
// for it waits in its sockets, as much as they hold, and streams that others open are connected but not
// accepted. Its goroutines and timers run on, unlike those of a stopped process.
func (h *Host) Freeze() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("freeze %s", h.name)
	h.frozen = !h.dead
}

// Thaw ends a Freeze: everything that had to wait goes on its way, in order.
func (h *Host) Thaw() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("thaw %s", h.name)
	if !h.frozen {
		return
	}
	h.frozen = false
	waiting := h.outbox
	h.outbox = nil
	for _, x := range waiting {
		h.net.launch(x.flow, x.cargo)
	}
	for _, c := range h.packets {
		c.unsentBytes = 0
	}
	h.wake()
}

// Isolate cuts the host off from all others, in both directions.
func (h *Host) Isolate() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("isolate %s", h.name)
	h.isolated = true
	for _, p := range h.net.paths {
		if p.from != p.to && (p.from == h || p.to == h) {
			h.net.sever(p)
		}
	}
}

// Rejoin ends an Isolate. What streams hold arrives.
func (h *Host) Rejoin() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("rejoin %s", h.name)
	h.isolated = false
	for _, p := range h.net.paths {
		if p.from == h || p.to == h {
			h.net.rejoin(p)
		}
	}
}

// Rebind gives the host's dialled UDP sockets other ports, as a NAT does that has forgotten them: their processes notice
// nothing, others see packets from new addresses, and what they send to the old ones vanishes.
func (h *Host) Rebind() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.tracef("rebind %s", h.name)
	for _, port := range slices.Sorted(maps.Keys(h.packets)) {
		c := h.packets[port]
		if !c.remote.IsValid() {
			continue
		}
		delete(h.packets, port)
		c.local = netip.AddrPortFrom(h.ip, h.freePort(h.packetPortTaken))
		c.source = net.UDPAddrFromAddrPort(c.local)
		h.packets[c.local.Port()] = c
		clear(c.flows)
	}
}

// vanish closes all sockets, in a fixed order.
func (h *Host) vanish() {
	for _, port := range slices.Sorted(maps.Keys(h.listeners)) {
		h.listeners[port].close()
	}
	for _, serial := range slices.Sorted(maps.Keys(h.streams)) {
		h.streams[serial].close()
	}
	for _, port := range slices.Sorted(maps.Keys(h.packets)) {
		h.packets[port].close()
	}
}

// wake wakes everyone who waits at a socket, in a fixed order.
func (h *Host) wake() {
	for _, port := range slices.Sorted(maps.Keys(h.listeners)) {
		h.listeners[port].cond.Broadcast()
	}
	for _, serial := range slices.Sorted(maps.Keys(h.streams)) {
		h.streams[serial].cond.Broadcast()
	}
	for _, port := range slices.Sorted(maps.Keys(h.packets)) {
		h.packets[port].cond.Broadcast()
	}
}
