package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// valve is a stream that takes nothing while it is shut.
type valve struct {
	mu       sync.Mutex
	open     chan struct{}
	deadline time.Time
	taken    int
}

func (v *valve) SetWriteDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deadline = t
	return nil
}

func (v *valve) Write(b []byte) (int, error) {
	v.mu.Lock()
	wait := time.Until(v.deadline)
	v.mu.Unlock()
	select {
	case <-v.open:
	case <-time.After(wait):
		return 0, os.ErrDeadlineExceeded
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.taken += len(b)
	return len(b), nil
}

func (v *valve) Close() error { return nil }

func (v *valve) bytes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.taken
}

// Sessions wait while too much is queued, go on when it has gone, and nothing of it is lost.
func TestQueueHoldsItsSessionsBack(t *testing.T) {
	const sessions, each = 50, 400
	text := make([]byte, 1000)
	synctest.Test(t, func(t *testing.T) {
		q, v := newQueue(wire.MaxBacklog, nil), &valve{open: make(chan struct{})}
		written := make(chan error, 1)
		go func() { written <- q.run(t.Context(), v) }()
		var running sync.WaitGroup
		lanes := newLanes([]*queue{q})
		for id := range uint64(sessions) {
			out := lanes.take(fmt.Sprint("conn-", id%5))
			running.Go(func() {
				for sequence := range uint64(each) {
					if err := q.room(t.Context()); err != nil {
						t.Errorf("waiting for room: %v", err)
						return
					}
					out.PutChunk(wire.Chunk{Session: id, Epoch: 1, Sequence: sequence + 1, Text: text})
					q.Flush()
				}
			})
		}
		time.Sleep(takeTimeout - time.Second)
		if queued := q.queued.Load(); queued < maxQueued || queued > maxQueued+sessions*2*int64(len(text)) {
			t.Errorf("%d bytes are queued, the bound is %d", queued, maxQueued)
		}
		close(v.open)
		running.Wait()
		q.Close()
		if err := <-written; err != nil {
			t.Error(err)
		}
		if got, least := v.bytes(), sessions*each*len(text); got < least || q.queued.Load() != 0 {
			t.Errorf("%d bytes arrived, want more than %d; %d are still counted", got, least, q.queued.Load())
		}
	})
}

func TestQueueOfADirectorThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := wire.Chunk{Session: 1, Epoch: 1, Sequence: 1, Text: make([]byte, 1000)}
		add := func(q *queue) { q.Put(func(b []byte) []byte { return wire.AppendLinkChunk(b, token) }) }
		var lost []error
		control := newQueue(maxQueued, func(err error) { lost = append(lost, err) })
		for put := 0; len(lost) == 0; put += len(token.Text) {
			if put > maxQueued+2000 {
				t.Fatalf("%d bytes were queued, and nobody noticed", put)
			}
			add(control)
		}
		if add(control); len(lost) != 1 || !errors.Is(lost[0], wire.ErrBacklog) {
			t.Errorf("lost %v", lost)
		}
		q := newQueue(wire.MaxBacklog, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		for q.queued.Load() < maxQueued {
			add(q)
		}
		start := time.Now()
		if err := q.run(ctx, &valve{open: make(chan struct{})}); !errors.Is(err, errNotTaken) || time.Since(start) != takeTimeout {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		waiting := make(chan error, 1)
		go func() { waiting <- q.room(ctx) }()
		synctest.Wait()
		cancel(errDirector)
		if err := <-waiting; !errors.Is(err, errDirector) {
			t.Errorf("got %v", err)
		}
	})
}
