package fleet

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
)

// Paths are the links to workers, as their QUIC connections see them.
type Paths struct {
	Links      int
	RTT, Worst time.Duration // smoothed, on average, and of the link where it is longest
	Sent, Lost uint64        // packets, of links that are lost too
}

// packets are those of links that are lost. The fleet's lock guards them.
type packets struct{ sent, lost uint64 }

func (p *packets) add(l *link.Link) {
	stats := l.Stats()
	p.sent += stats.PacketsSent
	p.lost += stats.PacketsLost
}

// Paths returns the numbers of this moment.
func (f *Fleet) Paths() (p Paths) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.gone
	for _, l := range f.links {
		rtt := l.Stats().SmoothedRTT
		p.RTT += rtt
		p.Worst = max(p.Worst, rtt)
		all.add(l)
	}
	if p.Links = len(f.links); p.Links > 0 {
		p.RTT /= time.Duration(p.Links)
	}
	p.Sent, p.Lost = all.sent, all.lost
	return p
}
