package wire

import (
	"context"
	"io"
	"runtime"
	"sync"
)

// Outbox collects frames from many goroutines and writes them to one stream in as few writes as it can:
// what is put while a write is under way leaves with the next one. A batch of sessions that step together
// therefore costs one write, not one each.
//
// The bound on what it holds is the caller's: every session's credit on a token stream, the number of
// attachments under way on a control stream.
type Outbox struct {
	mu     sync.Mutex
	buf    []byte
	closed bool
	wake   chan struct{} // capacity 1: there is something to write, or closed
}

// NewOutbox returns an empty Outbox. Nothing is written before Run.
func NewOutbox() *Outbox { return &Outbox{wake: make(chan struct{}, 1)} }

// Put adds what fill appends. It never blocks, and it does nothing after Close or once Run has returned.
func (o *Outbox) Put(fill func(b []byte) []byte) {
	o.mu.Lock()
	if !o.closed {
		o.buf = fill(o.buf)
	}
	o.mu.Unlock()
	o.signal()
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
		o.buf = spare[:0]
		o.mu.Unlock()
		if len(batch) > 0 {
			if _, err := w.Write(batch); err != nil {
				return err
			}
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
