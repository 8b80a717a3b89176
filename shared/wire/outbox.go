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
// It is bounded in bytes. A peer for which more than that waits takes nothing, or too little: it is lost. What was put
// for it is dropped, and so is all that follows.
type Outbox struct {
	limit int         // bytes that may wait
	lost  func(error) // called once, when more do

	mu      sync.Mutex
	buf     []byte
	writing int    // bytes of the write under way
	total   uint64 // bytes put so far
	closed  bool
	wake    chan struct{} // capacity 1: there is something to write, or closed
}

// MaxBacklog is the usual limit of an Outbox, in bytes. It has room for a thousand of the largest prompts that a director
// takes by default, all for one worker at once.
const MaxBacklog = 64 << 20

// NewOutbox returns an empty Outbox. Nothing is written before Run. When limit bytes wait and more is put, lost is called,
// with no lock held by the Outbox; it must not block. It is called once at most.
func NewOutbox(limit int, lost func(error)) *Outbox {
	return &Outbox{limit: limit, lost: lost, wake: make(chan struct{}, 1)}
}

// Put adds what fill appends. It never blocks, and it does nothing after Close, once Run has returned, or once the peer
// is lost. A single message may be larger than the limit.
func (o *Outbox) Put(fill func(b []byte) []byte) {
	o.mu.Lock()
	if waiting := len(o.buf) + o.writing; !o.closed && waiting >= o.limit {
		o.closed, o.buf = true, nil
		o.mu.Unlock()
		o.lost(fmt.Errorf("%w: %d bytes wait for it", ErrBacklog, waiting))
		return
	}
	if !o.closed {
		before := len(o.buf)
		o.buf = fill(o.buf)
		o.total += uint64(len(o.buf) - before)
	}
	o.mu.Unlock()
	o.signal()
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
		o.mu.Lock()
		batch, closed := o.buf, o.closed
		o.buf, o.writing = spare[:0], len(batch)
		o.mu.Unlock()
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
		spare = recycle(batch)
	}
}

// discard keeps an Outbox that nobody empties any more from growing.
func (o *Outbox) discard() {
	o.mu.Lock()
	o.closed, o.buf = true, nil
	o.mu.Unlock()
}

// gather lets the sessions of the same step put theirs too: it steps aside for as long as that brings more.
func (o *Outbox) gather() {
	for before, now := -1, 0; now != before; {
		before = now
		runtime.Gosched()
		o.mu.Lock()
		now = len(o.buf)
		o.mu.Unlock()
		if now > gatherMost {
			return
		}
	}
}

// gatherMost is how many bytes are worth a write, whatever else may come.
const gatherMost = 64 << 10

// recycle keeps a buffer for the next batch unless a burst made it large.
func recycle(b []byte) []byte {
	if cap(b) > 1<<20 {
		return nil
	}
	return b
}
