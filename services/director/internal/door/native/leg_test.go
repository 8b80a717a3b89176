package native

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// fakeStream is a client's stream whose window can be full.
type fakeStream struct {
	full      bool
	broken    error
	unblock   chan struct{}        // a blocked Write goes on when it is closed
	cancelled chan struct{}        // closed by CancelWrite,
	code      quic.StreamErrorCode // with this
	ctx       context.Context
	written   bytes.Buffer
	closed    bool
}

func (f *fakeStream) TryWriteAll(p []byte) error {
	switch {
	case f.broken != nil:
		return f.broken
	case f.full:
		return quic.ErrWouldBlock
	}
	f.written.Write(p)
	return nil
}

func (f *fakeStream) Write(p []byte) (int, error) {
	select {
	case <-f.unblock:
		return f.written.Write(p)
	case <-f.cancelled:
		return 0, context.Canceled
	}
}

func (f *fakeStream) CancelWrite(code quic.StreamErrorCode) { f.code = code; close(f.cancelled) }
func (f *fakeStream) Close() error                          { f.closed = true; return nil }
func (f *fakeStream) Context() context.Context              { return f.ctx }

// tokens returns how many tokens were written, in order from 1.
func (f *fakeStream) tokens(t *testing.T) (n uint64) {
	t.Helper()
	r := wire.NewReader(bytes.NewReader(f.written.Bytes()), wire.MaxControl)
	for {
		frame, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if frame.Type != wire.TypeToken {
			continue
		}
		n++
		if got, err := wire.ParseChunk(frame); err != nil || got.Sequence != n {
			t.Fatalf("token %d instead of %d, %v", got.Sequence, n, err)
		}
	}
}

// carried is a leg, with the log that it reads and what it told.
type carried struct {
	*leg
	stream *fakeStream
	log    *stream.Log
	told   chan any
	cancel context.CancelFunc // what a client does to its stream
}

func inLeg(t *testing.T, test func(c *carried)) {
	synctest.Test(t, func(t *testing.T) {
		stall := &clock.StallProof{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go stall.Run(ctx, func() {}) //nolint:errcheck // it ends with the bubble
		c := &carried{told: make(chan any, 1000), log: stream.New(stream.Config{MaxBytes: 1 << 20, MaxTokens: 1 << 20, Window: 1 << 20}, stall, func(stream.Notice) {})}
		streamCtx, cancelStream := context.WithCancel(t.Context())
		c.stream = &fakeStream{ctx: streamCtx, unblock: make(chan struct{}), cancelled: make(chan struct{})}
		c.cancel = cancelStream
		c.leg = newLeg(c.stream, c.log, stream.Cursor{}, stall, func(event any) { c.told <- event })
		c.log.Expect(1)
		c.log.Begun(1, func() {})
		c.log.Serve(1, "a", &wirepb.Assigned{})
		defer cancelStream()
		test(c)
	})
}

// make appends tokens to the log.
func (c *carried) make(n int) {
	for range n {
		c.log.Append(wire.Chunk{Epoch: 1, Sequence: c.log.Len() + 1, Text: bytes.Repeat([]byte("x"), 100)}, time.Now())
	}
}

// TestLegCatchesUp has a client whose window is full read on: it gets everything, in order, and then at once again.
func TestLegCatchesUp(t *testing.T) {
	inLeg(t, func(c *carried) {
		c.make(3)
		c.Push()
		if n := c.stream.tokens(t); n != 3 || c.log.Status().Taken != 3 {
			t.Fatalf("%d tokens", n)
		}
		c.stream.full = true
		c.make(100)
		c.Push()
		c.make(100)
		c.Push()
		synctest.Wait()
		if n := c.stream.tokens(t); n != 3 || c.log.Status().Taken != 3 {
			t.Fatalf("%d tokens through a full window", n)
		}
		c.stream.full = false
		close(c.stream.unblock)
		synctest.Wait()
		if n := c.stream.tokens(t); n != 203 || c.log.Status().Taken != 203 || len(c.told) == 0 {
			t.Fatalf("%d tokens, taken %+v, %d events", n, c.log.Status(), len(c.told))
		}
		c.make(1)
		c.Push()
		if n := c.stream.tokens(t); n != 204 {
			t.Errorf("%d tokens", n)
		}
		c.Close(nil)
		if !c.stream.closed || c.stream.code != 0 {
			t.Error("a stream that was taken to its end was not ended in order")
		}
	})
}

// TestStalled measures how long a client takes nothing.
func TestStalled(t *testing.T) {
	inLeg(t, func(c *carried) {
		c.stream.full = true
		time.Sleep(time.Minute)
		if d := c.Stalled(); d != 0 {
			t.Errorf("stalled for %v, and there is nothing to read", d)
		}
		c.make(1)
		c.Push()
		time.Sleep(10 * time.Second)
		if d := c.Stalled(); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("stalled for %v", d)
		}
		c.Close(session.ErrClientStalled)
		if c.stream.code != wire.StreamStalled {
			t.Errorf("the client is told %d", c.stream.code)
		}
	})
}

// TestLateFlush pushes through a leg that was closed: no goroutine writes.
func TestLateFlush(t *testing.T) {
	inLeg(t, func(c *carried) {
		c.stream.full = true
		c.Close(errors.New("gone"))
		c.make(1)
		c.Push()
		synctest.Wait()
		if c.writing || c.stream.closed || c.stream.code != 0 {
			t.Errorf("writing %v, closed %v, cancelled with %d", c.writing, c.stream.closed, c.stream.code)
		}
	})
}

// TestClientLeaves tells who ended the client's stream.
func TestClientLeaves(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		leaves func(c *carried)
		want   session.ClientLeft
	}{
		"cancels": {func(c *carried) { c.cancel() }, session.ClientLeft{Cancelled: true, Err: context.Canceled}},
		"breaks":  {func(c *carried) { c.stream.broken = broken; c.make(1); c.Push(); c.make(1); c.Push() }, session.ClientLeft{Err: broken}},
	} {
		t.Run(name, func(t *testing.T) {
			inLeg(t, func(carried *carried) {
				c.leaves(carried)
				synctest.Wait()
				if len(carried.told) != 1 || <-carried.told != c.want {
					t.Errorf("%d events", len(carried.told))
				}
				carried.Close(errors.New("gone"))
			})
		})
	}
}
