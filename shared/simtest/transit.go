package simtest

import (
	"fmt"
	"time"
)

// cargo is what travels: a packet, a refusal, or a piece of a stream.
type cargo interface {
	// arrive is called, with the Net locked, when it has reached its host.
	arrive(p *parcel)
	size() int
}

// parcel is cargo on its way.
type parcel struct {
	at    time.Duration
	flow  *flow
	seq   uint64 // within its flow
	cargo cargo
}

func (p *parcel) String() string {
	return fmt.Sprintf("%v #%d, %d bytes", p.flow, p.seq, p.cargo.size())
}

// send puts cargo on its way, unless its sender is frozen.
func (n *Net) send(f *flow, c cargo) {
	from := f.path.from
	if from.frozen {
		from.outbox = append(from.outbox, parcel{flow: f, cargo: c})
		return
	}
	n.launch(f, c)
}

// launch puts cargo on its way. What a machine sends by itself, its process frozen or not, starts here.
func (n *Net) launch(f *flow, c cargo) {
	x := parcel{flow: f, seq: f.sent, cargo: c}
	f.sent++
	switch {
	case n.closed, f.path.from.crashed:
		return
	case f.path.blocked():
		n.divert(x)
		return
	case !f.reliable && f.path.MTU > 0 && c.size() > f.path.MTU, !f.reliable && f.chance(f.path.Loss):
		n.stats.Lost++
		n.tracePacket("lost", &x)
		return
	}
	x.at = f.arrival(n.now())
	n.transit.push(x)
	n.arm()
}

// arm sets the timer to the first arrival, which is never at the present instant: what happens at it comes to rest before.
// (Nor would it be safe under the race detector. Go 1.26 runs a bubble's timer that is due at once in the goroutine that
// sets it, and where two goroutines do so in parallel the detector may crash.)
func (n *Net) arm() {
	first, ok := n.transit.first()
	now := n.now()
	at := max(first, now+1)
	if !ok || n.armed != 0 && n.armed <= at {
		return
	}
	n.armed = at
	n.timer.Reset(at - now)
}

// deliver lets the first parcel arrive that is due. It takes one parcel for each instant, even where more
// are due, so that what the arrival sets in motion comes to rest before the next one.
func (n *Net) deliver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.armed = 0
	now := n.now()
	if first, ok := n.transit.first(); ok && first <= now {
		p := n.transit.pop()
		n.arrive(&p)
	}
	n.arm()
}

// arrive hands a parcel to its host.
func (n *Net) arrive(p *parcel) {
	if p.flow.path.to.crashed {
		n.stats.Cut++
		n.tracePacket("vanished", p)
		return
	}
	n.tracePacket("arrived", p)
	p.cargo.arrive(p)
}

// queue is a heap of parcels, the next one to arrive first. At one instant the order is that of the flows,
// not of sending: goroutines that send at one instant do so in no particular order.
type queue struct{ heap []parcel }

func (q *queue) first() (time.Duration, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

func (q *queue) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	switch {
	case a.at != b.at:
		return a.at < b.at
	case a.flow.order != b.flow.order:
		return a.flow.order < b.flow.order
	default:
		return a.seq < b.seq
	}
}

func (q *queue) swap(i, j int) { q.heap[i], q.heap[j] = q.heap[j], q.heap[i] }

func (q *queue) push(p parcel) {
	q.heap = append(q.heap, p)
	for i := len(q.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.less(i, parent) {
			break
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *queue) pop() parcel {
	p := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0], q.heap[last] = q.heap[last], parcel{}
	q.heap = q.heap[:last]
	q.sink(0)
	return p
}

// sink restores the order below i.
func (q *queue) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(q.heap) {
			return
		}
		if child+1 < len(q.heap) && q.less(child+1, child) {
			child++
		}
		if !q.less(child, i) {
			return
		}
		q.swap(i, child)
		i = child
	}
}

// remove removes and returns all parcels for which want is true.
func (q *queue) remove(want func(parcel) bool) []parcel {
	var removed []parcel
	var kept queue
	for _, p := range q.heap {
		if want(p) {
			removed = append(removed, p)
		} else {
			kept.push(p)
		}
	}
	*q = kept
	return removed
}
