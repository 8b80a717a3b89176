package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
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

// windowed is a client's stream with a window that its reader opens.
type windowed struct {
	ctx context.Context

	mu      sync.Mutex
	room    int
	opened  chan struct{} // closed when there is more room, or the stream is cancelled
	over    bool
	written bytes.Buffer
}

func (w *windowed) TryWriteAll(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(p) > w.room {
		return quic.ErrWouldBlock
	}
	w.room -= len(p)
	w.written.Write(p)
	return nil
}

func (w *windowed) Write(p []byte) (n int, err error) {
	for {
		w.mu.Lock()
		taken := min(len(p)-n, w.room)
		w.room -= taken
		w.written.Write(p[n : n+taken])
		n += taken
		opened, over := w.opened, w.over
		w.mu.Unlock()
		switch {
		case n == len(p):
			return n, nil
		case over:
			return n, context.Canceled
		}
		<-opened
	}
}

func (w *windowed) open(more int, over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room += more
	w.over = w.over || over
	close(w.opened)
	w.opened = make(chan struct{})
}

func (w *windowed) CancelWrite(quic.StreamErrorCode) { w.open(0, true) }
func (w *windowed) Close() error                     { return nil }
func (w *windowed) Context() context.Context         { return w.ctx }

// TestLegOfMany has links' readers and the owner of the stream push while the client's window opens and closes: the
// client gets every token once, in order, and what it was told between them, and the log hears when it has all. Or the
// leg is closed in the middle, and nothing of it is left.
func TestLegOfMany(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tokens = 200
				random := rand.New(rand.NewPCG(seed, 1))
				delivered := make(chan struct{})
				log := stream.New(stream.Config{MaxBytes: 1 << 20, MaxTokens: tokens, Window: tokens}, &clock.StallProof{}, func(stream.Notice) {})
				w := &windowed{ctx: t.Context(), opened: make(chan struct{})}
				g := newLeg(w, log, stream.Cursor{}, &clock.StallProof{}, func(event any) {
					if event == (session.Delivered{}) {
						close(delivered)
					}
				})
				log.Expect(1)
				log.Begun(1, func() {})
				log.Serve(1, "a", &wirepb.Assigned{})
				var running sync.WaitGroup
				for range 3 {
					pause := time.Duration(1 + random.IntN(5))
					running.Go(func() {
						for range tokens {
							g.Push()
							time.Sleep(pause)
						}
					})
				}
				running.Go(func() {
					for n := range uint64(tokens) {
						log.Append(wire.Chunk{Epoch: 1, Sequence: n + 1, Text: bytes.Repeat([]byte("x"), 100)}, time.Now())
						time.Sleep(time.Nanosecond)
					}
					log.Close(&wirepb.Done{})
					g.Push()
				})
				early := seed%3 == 0
				for range random.IntN(40) {
					w.open(random.IntN(1000), false)
					time.Sleep(time.Duration(random.IntN(20)))
				}
				if early {
					g.Close(errors.New("gone"))
				} else {
					w.open(1<<20, false)
					<-delivered
					g.Close(nil)
				}
				running.Wait()
				if n, last := frames(t, w.written.Bytes()); !early && (n != tokens || last != wire.TypeDone) {
					t.Errorf("%d tokens, and %v", n, last)
				}
			})
		})
	}
}

// frames returns how many tokens there are, in order from 1, and the type of the last frame. The last may be cut off.
func frames(t *testing.T, b []byte) (n uint64, last wire.Type) {
	t.Helper()
	r := wire.NewReader(bytes.NewReader(b), wire.MaxControl)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, last
		}
		if err != nil {
			t.Fatal(err)
		}
		if last = f.Type; f.Type != wire.TypeToken {
			continue
		}
		n++
		if got, err := wire.ParseChunk(f); err != nil || got.Sequence != n {
			t.Fatalf("token %d instead of %d, %v", got.Sequence, n, err)
		}
	}
}
