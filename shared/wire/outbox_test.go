package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// slowWriter takes a second for each write, and keeps them apart.
type slowWriter struct {
	writes []string
	err    error
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Second)
	if w.err != nil {
		return 0, w.err
	}
	w.writes = append(w.writes, string(p))
	return len(p), nil
}

func put(o *Outbox, s string) { o.Put(func(b []byte) []byte { return append(b, s...) }) }

// start runs o in the background; the function it returns waits for the end of Run.
func start(ctx context.Context, o *Outbox, w io.Writer) func() error {
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx, w) }()
	return func() error { return <-done }
}

func TestOutboxBatchesWhatComesDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w slowWriter
		o := NewOutbox(MaxBacklog, nil)
		wait := start(t.Context(), o, &w)
		put(o, "first")
		synctest.Wait() // the first write is under way
		for _, s := range []string{"a", "b", "c"} {
			put(o, s)
		}
		time.Sleep(10 * time.Second)
		put(o, "alone")
		time.Sleep(10 * time.Second)
		o.Close()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		want := []string{"first", "abc", "alone"}
		if len(w.writes) != len(want) || w.writes[0] != want[0] || w.writes[1] != want[1] || w.writes[2] != want[2] {
			t.Fatalf("wrote %q, want %q", w.writes, want)
		}
	})
}

func TestOutboxCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w slowWriter
		o := NewOutbox(MaxBacklog, nil)
		put(o, "before Run, ")
		wait := start(t.Context(), o, &w)
		synctest.Wait()
		put(o, "during a write")
		o.Close()
		put(o, "after Close")
		o.Close()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := w.writes; len(got) != 2 || got[0]+got[1] != "before Run, during a write" {
			t.Fatalf("wrote %q", got)
		}
	})
}

func TestOutboxClosedEmptyWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbox(MaxBacklog, nil)
		var w slowWriter
		wait := start(t.Context(), o, &w)
		synctest.Wait()
		o.Close()
		if err := wait(); err != nil || len(w.writes) != 0 {
			t.Fatal(w.writes, err)
		}
	})
}

func TestOutboxEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("link lost")
		ctx, cancel := context.WithCancelCause(t.Context())
		o := NewOutbox(MaxBacklog, nil)
		wait := start(ctx, o, &slowWriter{})
		synctest.Wait()
		cancel(why)
		if err := wait(); !errors.Is(err, why) {
			t.Fatal(err)
		}
		checkDiscards(t, o)
	})
}

func TestOutboxEndsWithItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := slowWriter{err: io.ErrClosedPipe}
		o := NewOutbox(MaxBacklog, nil)
		put(o, "lost")
		if err := start(t.Context(), o, &w)(); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		checkDiscards(t, o)
	})
}

// checkDiscards checks that what nobody will write is not kept.
func checkDiscards(t *testing.T, o *Outbox) {
	t.Helper()
	put(o, "too late")
	if len(o.main.buf) > 0 {
		t.Fatalf("keeps %q", o.main.buf)
	}
}

func TestOutboxKeepsTheOrderOfEachSender(t *testing.T) {
	const senders, each = 8, 500
	var out bytes.Buffer
	o := NewOutbox(MaxBacklog, nil)
	wait := start(t.Context(), o, &out)
	var wg sync.WaitGroup
	for i := range uint64(senders) {
		wg.Go(func() {
			for n := range uint64(each) {
				o.Send(&wirepb.Cancel{Session: i, Epoch: n})
			}
		})
	}
	wg.Wait()
	o.Close()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&out, MaxControl)
	var seen [senders]uint64
	for range senders * each {
		m, err := ReadMessage[*wirepb.Cancel](r)
		if err != nil || seen[m.GetSession()] != m.GetEpoch() {
			t.Fatalf("got %v, %v; want epoch %d", m, err, seen[m.GetSession()])
		}
		seen[m.GetSession()]++
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// TestOutboxLosesAPeerThatTakesNothing puts without end for a writer that never returns: what waits is bounded, and the
// peer is lost, once. A single message may be larger than the bound.
func TestOutboxLosesAPeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost []error
		o := NewOutbox(1000, func(err error) { lost = append(lost, err) })
		var w slowWriter
		wait := start(t.Context(), o, &w)
		large := string(make([]byte, 5000))
		put(o, large)
		synctest.Wait() // being written
		put(o, "beyond")
		if len(lost) != 1 || !errors.Is(lost[0], ErrBacklog) || o.Total() != 5000 {
			t.Fatalf("lost %v, %d bytes were put", lost, o.Total())
		}
		put(o, large)
		if err := wait(); err != nil || len(w.writes) != 1 {
			t.Errorf("%d writes, %v", len(w.writes), err)
		}
		if len(lost) != 1 || len(o.main.buf) != 0 {
			t.Errorf("lost %v, %d bytes wait", lost, len(o.main.buf))
		}
	})
}

// TestOutboxForgetsWhatIsWritten puts more than the bound, each time after what was there is written.
func TestOutboxForgetsWhatIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbox(10, func(err error) { t.Error(err) })
		var w slowWriter
		wait := start(t.Context(), o, &w)
		for range 10 {
			put(o, "12345678")
			time.Sleep(10 * time.Second)
		}
		o.Close()
		if err := wait(); err != nil || len(w.writes) != 10 || o.Total() != 80 {
			t.Errorf("%d writes, %d bytes, %v", len(w.writes), o.Total(), err)
		}
	})
}

func TestOutboxReusesItsBuffers(t *testing.T) {
	for _, c := range []struct{ length, capacity, kept int }{{10, 1000, 1000}, {10, 1001, 0}, {500, 1001, 1001}} {
		if got := recycle(make([]byte, c.length, c.capacity), 1000); len(got) != 0 || cap(got) != c.capacity && c.kept > 0 || cap(got) > c.kept {
			t.Errorf("%d bytes in a buffer of %d: kept %d, want %d", c.length, c.capacity, cap(got), c.kept)
		}
	}
}

// TestOutboxFlush: chunks wait for what follows, until they are flushed or something else is put.
func TestOutboxFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbox(100, nil)
		var w slowWriter
		wait := start(t.Context(), o, &w)
		lane, pause := o.Lane(), func() {
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		for sequence := range uint64(3) {
			lane.PutChunk(Chunk{Session: 1, Epoch: 1, Sequence: sequence, Text: []byte("text")})
			pause()
		}
		if len(w.writes) > 0 {
			t.Errorf("wrote %q before Flush", w.writes)
		}
		o.Flush()
		pause()
		lane.PutChunk(Chunk{Session: 1, Epoch: 1, Sequence: 4, Text: []byte("text")})
		put(o, "more")
		pause()
		if len(w.writes) != 2 || strings.Count(w.writes[0], "text") != 3 || !strings.HasSuffix(w.writes[1], "textmore") {
			t.Errorf("wrote %q", w.writes)
		}
		o.Close()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestOutboxKeepsLanesTogether puts into two lanes by turns: what one lane got during a write leaves side by side, and
// the bound is over both.
func TestOutboxKeepsLanesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost []error
		o := NewOutbox(100, func(err error) { lost = append(lost, err) })
		var w slowWriter
		wait := start(t.Context(), o, &w)
		put(o, "first")
		synctest.Wait() // the first write is under way
		a, b := o.Lane(), o.Lane()
		add := func(l *Lane, s string) int { return l.Put(func(b []byte) []byte { return append(b, s...) }) }
		for _, n := range []string{"1", "2", "3"} {
			add(a, "a"+n)
			add(b, "b"+n)
		}
		time.Sleep(10 * time.Second)
		add(b, "b4")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(w.writes); got != "[first a1a2a3b1b2b3 b4]" {
			t.Fatalf("wrote %s", got)
		}
		half := string(make([]byte, 50))
		if add(a, half) != 50 || add(b, half) != 50 || add(a, half) != 0 || len(lost) != 1 || len(a.buf)+len(b.buf) != 0 {
			t.Errorf("lost %v, %d bytes wait", lost, len(a.buf)+len(b.buf))
		}
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkLanes is what a token costs that one of ten sessions of a hundred clients puts, up to where it is written.
func BenchmarkLanes(b *testing.B) {
	o := NewOutbox(MaxBacklog, nil)
	wait := start(b.Context(), o, io.Discard)
	lanes := make([]*Lane, 100)
	for i := range lanes {
		lanes[i] = o.Lane()
	}
	token := Chunk{Session: 1000, Epoch: 1, Sequence: 1, Text: make([]byte, 64)}
	b.ReportAllocs()
	for b.Loop() {
		token.Sequence++
		lanes[token.Sequence%100].PutChunk(token)
		o.Flush()
		if token.Sequence%10_000 == 0 {
			for o.backlog() > 0 { // not to measure how the backlog grows
				runtime.Gosched()
			}
		}
	}
	o.Close()
	if err := wait(); err != nil {
		b.Error(err)
	}
}

func (o *Outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting
}
