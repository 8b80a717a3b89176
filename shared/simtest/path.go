package simtest

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Path says what one direction between two hosts does to what is sent.
type Path struct {
	Delay  time.Duration // of everything
	Jitter time.Duration // up to so much is added; it alone changes no order within a flow

	Loss      float64 // probability that a packet is lost
	Duplicate float64 // probability that a packet arrives twice
	Reorder   float64 // probability that a packet is held up by up to Delay + Jitter, others overtaking it

	MTU int // UDP payloads above so many bytes are lost without a word; 0 for no limit
}

func (p Path) String() string {
	s := fmt.Sprintf("delay %v+%v, loss %g, duplicate %g, reorder %g", p.Delay, p.Jitter, p.Loss, p.Duplicate, p.Reorder)
	if p.MTU > 0 {
		s += fmt.Sprintf(", MTU %d", p.MTU)
	}
	return s
}

// loopback is the path from a host to itself.
var loopback = Path{Delay: 20 * time.Microsecond}

// retransmission is when TCP sends a lost segment again; each further time takes twice as long.
const retransmission = 200 * time.Millisecond

// path is one direction between two hosts.
type path struct {
	Path
	from, to *Host
	cut      bool
	waiting  []parcel // of streams, in order, while blocked
}

// path returns the path between two hosts.
func (n *Net) path(from, to *Host) *path {
	if p, ok := from.paths[to]; ok {
		return p
	}
	p := &path{Path: n.opts.Path, from: from, to: to}
	if from == to {
		p.Path = loopback
	}
	from.paths[to] = p
	n.paths = append(n.paths, p)
	return p
}

// blocked reports whether nothing may pass.
func (p *path) blocked() bool {
	return p.cut || p.from != p.to && (p.from.isolated || p.to.isolated)
}

// sever takes what is under way on a path that was just blocked: packets are lost, streams wait.
func (n *Net) sever(p *path) {
	diverted := n.transit.remove(func(x parcel) bool { return x.flow.path == p })
	slices.SortFunc(diverted, func(a, b parcel) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.flow.order, b.flow.order), cmp.Compare(a.seq, b.seq))
	})
	for _, x := range diverted {
		n.divert(x)
	}
}

// divert has a parcel of a stream wait until its path is open again. Packets are lost.
func (n *Net) divert(x parcel) {
	if x.flow.reliable {
		x.flow.path.waiting = append(x.flow.path.waiting, x)
		return
	}
	n.stats.Cut++
	n.tracePacket("cut", &x)
}

// rejoin sends what had to wait for a path, if it is open again.
func (n *Net) rejoin(p *path) {
	if p.blocked() {
		return
	}
	waiting := p.waiting
	p.waiting = nil
	for _, x := range waiting {
		n.launch(x.flow, x.cargo)
	}
}
