package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

const (
	// maxQueued is how many bytes may wait for one stream of a link. On a token stream generation waits beyond that, so
	// that a director cannot make the worker hold more by granting credit without reading; on the control stream nothing
	// can wait, and the link ends.
	maxQueued = 1 << 20
	// takeTimeout is how long a director may take nothing of what waits for it, or twice that if it took some before. QUIC
	// has megabytes of it then.
	takeTimeout = 15 * time.Second
)

var errNotTaken = fmt.Errorf("the director took nothing for %v", takeTimeout)

// queue is what waits for one stream of a link, in bytes that are counted. Many goroutines put, that of run writes.
type queue struct {
	*wire.Outbox

	queued atomic.Int64

	waiting atomic.Bool // somebody may wait for roomy
	mu      sync.Mutex
	roomy   chan struct{} // closed when half of maxQueued is free
}

// newQueue returns an empty queue. When limit bytes wait, and more is put, lost is called: see wire.Outbox.
func newQueue(limit int, lost func(error)) *queue {
	return &queue{Outbox: wire.NewOutbox(limit, lost), roomy: make(chan struct{})}
}

// Put adds what fill appends.
func (q *queue) Put(fill func(b []byte) []byte) { q.queued.Add(int64(q.Outbox.Put(fill))) }

// Send adds one message.
func (q *queue) Send(m wire.Message) {
	q.Put(func(b []byte) []byte { return wire.Append(b, m) })
}

// room waits until less than maxQueued bytes are queued. Where there is room, which is usual, it costs one load.
func (q *queue) room(ctx context.Context) error {
	for q.queued.Load() >= maxQueued {
		q.mu.Lock()
		q.waiting.Store(true) // before the next look: whoever writes after that sees it
		roomy := q.roomy
		q.mu.Unlock()
		if q.queued.Load() < maxQueued {
			return nil
		}
		select {
		case <-roomy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// wrote gives room back.
func (q *queue) wrote(n int) {
	if q.queued.Add(-int64(n)) > maxQueued/2 || !q.waiting.Load() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.Store(false)
	close(q.roomy)
	q.roomy = make(chan struct{})
}

// run writes what is put to s until ctx ends, s fails or takes nothing for takeTimeout, or the queue is closed and empty.
func (q *queue) run(ctx context.Context, s SendStream) error {
	return q.Run(ctx, &queueWriter{queue: q, stream: s})
}

type queueWriter struct {
	queue  *queue
	stream SendStream
}

func (w *queueWriter) Write(b []byte) (written int, err error) {
	for written < len(b) {
		if err := w.stream.SetWriteDeadline(time.Now().Add(takeTimeout)); err != nil {
			return written, err
		}
		n, err := w.stream.Write(b[written:]) // all: QUIC sends faster what it has in one piece
		w.queue.wrote(n)
		written += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n == 0:
			return written, errNotTaken
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded): // else it takes, but slowly
			return written, err
		}
	}
	return written, nil
}
