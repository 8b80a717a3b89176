package simtest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"sync"
	"time"
)

// Options are the properties of a Net. The zero value is a perfect network without delay.
type Options struct {
	// Path is what every direction between two hosts is like, unless SetPath says otherwise.
	Path Path
	// Silent makes closed ports drop what comes, as a firewall does, instead of refusing it.
	Silent bool
	// Buffer is how many bytes a socket holds for a reader, a writer or a frozen process. A packet that does
	// not fit is lost, a stream's writer waits. Zero means 256 KiB.
	Buffer int
	// Trace, if set, hears of every fault. It must not call back into the Net.
	Trace func(format string, args ...any)
	// TracePackets makes Trace hear of every packet too.
	TracePackets bool
}

const defaultBuffer = 256 << 10

// Net is one simulated network. Its methods, and those of its hosts and their sockets, are safe for
// concurrent use. It owns no goroutine: one timer drives it.
type Net struct {
	opts  Options
	seed  uint64
	start time.Time

	// mu guards all below, and every host, path, flow and socket. It is never held while blocked.
	mu      sync.Mutex
	closed  bool
	hosts   []*Host // in order of creation
	byIP    map[netip.Addr]*Host
	names   map[string][]*Host
	paths   []*path // in order of creation
	flows   map[flowKey]*flow
	transit queue
	timer   *time.Timer   // fires when the first of transit is due
	armed   time.Duration // when that is; 0 if the timer is not running
	spare   []*datagram   // to be used again
	serial  uint64        // of the newest stream
	stats   Stats
	digest  uint32
}

// Stats counts what happened to packets.
type Stats struct {
	Sent      int // written by a socket, or added by duplication
	Delivered int // put into a socket's buffer
	Lost      int // by chance
	Cut       int // by a cut path, an isolated or crashed host
	Refused   int // nobody listened
	Overflow  int // a buffer was full
	Bytes     int // delivered
}

// New returns a network without hosts. In a synctest bubble, call it inside.
func New(seed uint64, opts Options) *Net {
	if opts.Buffer == 0 {
		opts.Buffer = defaultBuffer
	}
	n := &Net{
		opts:  opts,
		seed:  seed,
		start: time.Now(),
		byIP:  make(map[netip.Addr]*Host),
		names: make(map[string][]*Host),
		flows: make(map[flowKey]*flow),
	}
	n.timer = time.AfterFunc(time.Hour, n.deliver)
	n.timer.Stop()
	return n
}

// Host returns the host of that name, and creates it at the first call. Its name resolves on every host.
func (n *Net) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.names[name]; len(known) > 0 {
		return known[0]
	}
	h := newHost(n, name, len(n.hosts)+1)
	n.hosts = append(n.hosts, h)
	n.byIP[h.ip] = h
	n.names[name] = []*Host{h}
	return h
}

// Alias makes name resolve to all of hosts, in that order.
func (n *Net) Alias(name string, hosts ...*Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = hosts
}

// Close closes all sockets and drops what is on its way. Nothing of the Net runs afterwards.
func (n *Net) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.timer.Stop()
	n.transit = queue{}
	for _, h := range n.hosts {
		h.vanish()
	}
}

// Stats returns the counts so far.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Fingerprint stands for all that was delivered so far: when, from where to where, and the bytes. Runs that
// are the same have the same fingerprint.
func (n *Net) Fingerprint() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("%08x-%d-%d", n.digest, n.stats.Delivered, n.stats.Bytes)
}

// SetPath sets what one direction between two hosts is like, for all that is sent from now on.
func (n *Net) SetPath(from, to *Host, p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(from, to).Path = p
	n.tracef("path %s > %s: %v", from.name, to.name, p)
}

// Cut lets nothing pass in one direction until Heal. Packets vanish, those under way too; streams stay open
// and silent.
func (n *Net) Cut(from, to *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracef("cut %s > %s", from.name, to.name)
	p := n.path(from, to)
	p.cut = true
	n.sever(p)
}

// Heal ends a Cut. What streams hold arrives.
func (n *Net) Heal(from, to *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracef("heal %s > %s", from.name, to.name)
	p := n.path(from, to)
	p.cut = false
	n.rejoin(p)
}

// now is the time since the Net was made.
func (n *Net) now() time.Duration { return time.Since(n.start) }

func (n *Net) tracef(format string, args ...any) {
	if n.opts.Trace != nil {
		n.opts.Trace("%12v  "+format, append([]any{n.now()}, args...)...)
	}
}

func (n *Net) tracePacket(what string, p *parcel) {
	if n.opts.TracePackets {
		n.tracef("%s %s", what, p)
	}
}

// fingerprint adds a delivery to the fingerprint.
func (n *Net) fingerprint(p *parcel, data []byte) {
	head := make([]byte, 0, 24)
	head = binary.LittleEndian.AppendUint64(head, uint64(n.now()))
	head = binary.LittleEndian.AppendUint64(head, p.flow.order)
	head = binary.LittleEndian.AppendUint64(head, p.seq)
	n.digest = crc32.Update(n.digest, castagnoli, head[:])
	n.digest = crc32.Update(n.digest, castagnoli, data)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
