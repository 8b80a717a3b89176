package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// Outbox collects frames from many goroutines and writes them to one stream in as few writes as it can:
// what is put while a write is under way leaves with the next one. A batch of sessions that step together
// therefore costs one write, not one each.
//
// What is put lies in lanes. The frames of one lane leave in their order and, within one write, side by side; between
// lanes there is no order.
//
// It is bounded in bytes, over all lanes. A peer for which more than that waits takes nothing, or too little: it is
// lost. What was put for it is dropped, and so is all that follows.
type Outbox struct {
	limit int           // bytes that may wait
	lost  func(error)   // called once, when more do
	main  *Lane         // of Put and Send
	wake  chan struct{} // capacity 1: there is something to write, or closed

	mu      sync.Mutex // guards the lanes' buffers too
	ready   []*Lane    // those with frames, in the order in which they got their first
	waiting int        // bytes in them
	writing int        // bytes of the write under way
	total   uint64     // bytes put so far
	closed  bool
}

// Lane is what belongs together of what waits in an Outbox. It needs no end: who has put the last frame forgets it.
type Lane struct {
	out *Outbox
	buf []byte
}

// MaxBacklog is the usual limit of an Outbox, in bytes. It has room for a thousand of the largest prompts that a director
// takes by default, all for one worker at once.
const MaxBacklog = 64 << 20

// NewOutbox returns an empty Outbox. Nothing is written before Run. When limit bytes wait and more is put, lost is called,
// with no lock held by the Outbox; it must not block. It is called once at most.
func NewOutbox(limit int, lost func(error)) *Outbox {
	o := &Outbox{limit: limit, lost: lost, wake: make(chan struct{}, 1)}
	o.main = o.Lane()
	return o
}

// Lane returns a new lane.
func (o *Outbox) Lane() *Lane { return &Lane{out: o} }

// Put adds what fill appends. It never blocks, and it does nothing after Close, once Run has returned, or once the peer
// is lost. A single message may be larger than the limit. It returns how many bytes were added.
func (o *Outbox) Put(fill func(b []byte) []byte) int { return o.main.Put(fill) }

// Put is Outbox.Put into this lane.
func (l *Lane) Put(fill func(b []byte) []byte) int {
	before, ok := l.begin()
	if !ok {
		return 0
	}
	l.buf = fill(l.buf)
	size := l.end(before)
	l.out.signal()
	return size
}

// PutChunk puts a token of a link, as Put would: there are too many of them to make a closure for each. It does not wake Run: Flush
// does.
func (l *Lane) PutChunk(t Chunk) int {
	before, ok := l.begin()
	if !ok {
		return 0
	}
	l.buf = AppendLinkChunk(l.buf, t)
	return l.end(before)
}

// Flush has Run write what PutChunk has put. So does whatever is put otherwise.
func (o *Outbox) Flush() { o.signal() }

// begin reports whether something may be put. If so, the Outbox's mu is held until end.
func (l *Lane) begin() (before int, ok bool) {
	o := l.out
	o.mu.Lock()
	waiting := o.waiting + o.writing
	if !o.closed && waiting < o.limit {
		return len(l.buf), true
	}
	lost := !o.closed
	if lost {
		o.drop()
	}
	o.mu.Unlock()
	if lost {
		o.lost(fmt.Errorf("%w: %d bytes wait for it", ErrBacklog, waiting))
		o.signal()
	}
	return 0, false
}

// end accounts for what was put. Run has to be woken after it; it takes all that follow until it gets to it.
func (l *Lane) end(before int) (size int) {
	o := l.out
	if before == 0 {
		o.ready = append(o.ready, l)
	}
	size = len(l.buf) - before
	o.waiting += size
	o.total += uint64(size)
	o.mu.Unlock()
	return size
}

// ErrBacklog means that a peer takes less than there is for it.
var ErrBacklog = errors.New("the peer does not take what is sent")

// Total returns how many bytes have been put so far.
func (o *Outbox) Total() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// Send adds one message.
func (o *Outbox) Send(m Message) {
	o.Put(func(b []byte) []byte { return Append(b, m) })
}

// Close makes Run return once it has written what was put before.
func (o *Outbox) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run writes to w until ctx ends, w fails, or Close was called and all is written (then it returns nil).
// It runs once.
func (o *Outbox) Run(ctx context.Context, w io.Writer) error {
	defer o.discard()
	var spare []byte
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-o.wake:
		}
		o.gather()
		batch, closed := o.take(spare)
		if len(batch) > 0 {
			if _, err := w.Write(batch); err != nil {
				return err
			}
			o.mu.Lock()
			o.writing = 0
			o.mu.Unlock()
		}
		if closed {
			return nil
		}
		spare = recycle(batch, batchMost)
	}
}

// take appends all that waits to b, lane by lane.
func (o *Outbox) take(b []byte) (batch []byte, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.ready {
		b = append(b, l.buf...)
		l.buf = recycle(l.buf, laneMost)
	}
	clear(o.ready)
	o.ready, o.waiting, o.writing = o.ready[:0], 0, len(b)
	return b, o.closed
}

// How many bytes of buffer are kept for what comes next, used or not: there may be many lanes.
const (
	laneMost  = 16 << 10
	batchMost = 1 << 20
)

// discard keeps an Outbox that nobody empties any more from growing.
func (o *Outbox) discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
}

// drop closes an Outbox and forgets what waits in it. o.mu is held.
func (o *Outbox) drop() {
	for _, l := range o.ready {
		l.buf = nil
	}
	o.closed, o.ready, o.waiting = true, nil, 0
}

// gather lets the sessions of the same step put theirs too: it steps aside for as long as that brings more.
func (o *Outbox) gather() {
	for before, now := -1, 0; now != before; {
		before = now
		runtime.Gosched()
		o.mu.Lock()
		now = o.waiting
		o.mu.Unlock()
		if now > gatherMost {
			return
		}
	}
}

// gatherMost is how many bytes are worth a write, whatever else may come.
const gatherMost = 64 << 10

// recycle returns a buffer emptied for the next use, unless it is large and was hardly used: then a burst made it so.
func recycle(b []byte, most int) []byte {
	if cap(b) > most && len(b) < cap(b)/4 {
		return nil
	}
	return b[:0]
}
