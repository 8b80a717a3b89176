package engines_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
	"github.com/connswap/connswap/shared/wire"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

var request = engine.Request{Prompt: "Tell me about the river.", Seed: 7}

// stateful returns an engine as a worker of its own has it.
func stateful(t testing.TB, size int) engine.Stateful {
	t.Helper()
	e, err := engines.New("stateful", engines.Options{StateBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	return e.(engine.Stateful)
}

func open(t testing.TB, e engine.Engine, req engine.Request, prefix ...[]byte) engine.Capturer {
	t.Helper()
	g, err := e.Open(t.Context(), req, chunks(prefix...), ignore)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return g.(engine.Capturer)
}

// restore gives the engine a copy: the generation may do with it what it likes.
func restore(t testing.TB, e engine.Stateful, req engine.Request, state []byte) engine.Capturer {
	t.Helper()
	g, err := e.Restore(t.Context(), req, bytes.Clone(state))
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	return g.(engine.Capturer)
}

func next(t testing.TB, g engine.Generation, n int) string {
	t.Helper()
	var text strings.Builder
	for range n {
		token, err := g.Next(t.Context())
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		text.Write(token.Text)
	}
	return text.String()
}

func capture(t testing.TB, g engine.Capturer, buf []byte) []byte {
	t.Helper()
	state, err := g.Capture(buf)
	if err != nil {
		t.Fatalf("Capture: %v", err)
	}
	return state
}

// after returns the state after n tokens of request.
func after(t testing.TB, e engine.Stateful, n int) []byte {
	t.Helper()
	g := open(t, e, request)
	next(t, g, n)
	return capture(t, g, nil)
}

func TestStateGoesOnAtEveryCut(t *testing.T) {
	const n = 150
	for _, size := range []int{kib, kib + 1, 3*kib + 7, 64*kib - 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			ours, theirs := stateful(t, size), stateful(t, size) // as on two workers
			for _, req := range []engine.Request{request, {}, {Prompt: "\x00", Seed: 1<<64 - 1}} {
				whole := generate(t, ours, req, nil, n)
				source := open(t, ours, req)
				var state []byte
				for cut := range n {
					state = capture(t, source, state[:0]) // at every cut: it disturbs nothing
					if len(state) != size {
						t.Fatalf("a state of %d bytes", len(state))
					}
					want := string(bytes.Join(whole[cut:], nil))
					if got := next(t, restore(t, theirs, req, state), n-cut); got != want {
						t.Fatalf("restored after %d tokens, it goes on with %.60q, not %.60q", cut, got, want)
					}
					if got, want := next(t, source, 1), string(whole[cut]); got != want {
						t.Fatalf("captured after %d tokens, it goes on with %q, not %q", cut, got, want)
					}
				}
			}
		})
	}
}

func TestReplayLeadsToTheSameState(t *testing.T) {
	e := stateful(t, 5000)
	whole := generate(t, e, request, nil, 300)
	state := after(t, e, 200)
	if replayed := capture(t, open(t, e, request, whole[:200]...), nil); !bytes.Equal(replayed, state) {
		t.Error("after a replay the state is another one")
	}
	if again := capture(t, restore(t, e, request, state), nil); !bytes.Equal(again, state) {
		t.Error("after a restore the state is another one")
	}
}

func TestCaptureIsACopy(t *testing.T) {
	e := stateful(t, kib)
	want := next(t, open(t, e, request), 100)

	g := open(t, e, request)
	got := next(t, g, 40)
	state := capture(t, g, nil)
	kept := bytes.Clone(state)
	clear(state)
	if got += next(t, g, 60); got != want {
		t.Error("what is done to a captured state changes the generation")
	}
	if text := next(t, restore(t, e, request, kept), 60); !strings.HasSuffix(want, text) {
		t.Error("a state was changed by the generation that it was captured from")
	}
}

func TestCaptureAppends(t *testing.T) {
	g := open(t, stateful(t, kib), request)
	next(t, g, 3)
	alone := capture(t, g, nil)
	buf := append(make([]byte, 0, 5*kib), "head"...)
	both := capture(t, g, buf)
	if string(both[:4]) != "head" || !bytes.Equal(both[4:], alone) {
		t.Error("Capture does not append")
	}
	if &both[0] != &buf[0] {
		t.Error("Capture did not use the room there was")
	}
}

func TestRestoreRefuses(t *testing.T) {
	e := stateful(t, kib)
	state := after(t, e, 20)
	other := request
	other.Seed++
	elsewhere := request
	elsewhere.Prompt += " "
	for _, c := range []struct {
		name  string
		e     engine.Stateful
		req   engine.Request
		state []byte
		want  string
	}{
		{"nothing", e, request, nil, "0 bytes, not 1024"},
		{"a part of the header", e, request, state[:50], "50 bytes"},
		{"only the header", e, request, state[:64], "64 bytes"},
		{"one byte less", e, request, state[:kib-1], "1023 bytes"},
		{"one byte more", e, request, append(bytes.Clone(state), 0), "1025 bytes"},
		{"twice", e, request, slices.Repeat(state, 2), "2048 bytes"},
		{"zeros", e, request, make([]byte, kib), "in its header"},
		{"half restored", e, request, append(bytes.Clone(state[:512]), make([]byte, 512)...), "damaged"},
		{"half of an older one", e, request, append(bytes.Clone(state[:512]), after(t, e, 10)[512:]...), "damaged"},
		{"another seed", e, other, state, "another request"},
		{"another prompt", e, elsewhere, state, "another request"},
		{"a smaller one", stateful(t, 2*kib), request, state, "1024 bytes, not 2048"},
		{"a larger one", e, request, after(t, stateful(t, 2*kib), 20), "2048 bytes, not 1024"},
		{"version", e, request, seal(flip(state, 4, 1)), "version 0, not 1"},
		{"magic", e, request, seal(flip(state, 8, 1)), "in its header"},
		{"size", e, request, seal(flip(state, 16, 1)), "another request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := c.e.Restore(t.Context(), c.req, c.state)
			if err == nil || g != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v and %v, want an error with %q", g, err, c.want)
			}
		})
	}
	for at := range state {
		if _, err := e.Restore(t.Context(), request, flip(state, at, 1<<(at%8))); err == nil {
			t.Errorf("byte %d was changed, and the state accepted", at)
		}
	}
}

// What is generated does not depend on how much of it is wanted.
func TestRestoreForAnotherLimit(t *testing.T) {
	e := stateful(t, kib)
	longer := request
	longer.MaxTokens = 1000
	want := next(t, open(t, e, longer), 40)
	if got := next(t, restore(t, e, longer, after(t, e, 20)), 20); !strings.HasSuffix(want, got) {
		t.Errorf("got %q, not the end of %q", got, want)
	}
}

func TestAnOldStateGivesOtherWords(t *testing.T) {
	e := stateful(t, kib)
	want := next(t, restore(t, e, request, after(t, e, 100)), 8)
	for age := 1; age <= 100; age++ {
		if got := next(t, restore(t, e, request, after(t, e, 100-age)), 8); got == want {
			t.Errorf("a state that is %d tokens old goes on with the same words", age)
		}
	}
}

// TestEveryByteCounts changes what no checksum tells any more.
func TestEveryByteCounts(t *testing.T) {
	for _, size := range []int{kib, kib + 3} {
		e := stateful(t, size)
		state := after(t, e, 50)
		lines := size/64 + 1 // in so many tokens everything is read
		want := next(t, restore(t, e, request, state), lines+8)
		for at := 48; at < size; at++ { // what is before only says what state it is
			g := restore(t, e, request, seal(flip(state, at, 1<<(at%8))))
			if got := next(t, g, lines+8); got == want {
				t.Errorf("size %d: byte %d has no influence", size, at)
			}
		}
	}
}

// TestALostPageIsNoticed restores states of which one page has only zeros, under a checksum that fits.
func TestALostPageIsNoticed(t *testing.T) {
	const size, page = 256 * kib, 4 * kib
	e := stateful(t, size)
	state := after(t, e, 50)
	want := next(t, restore(t, e, request, state), size/64)
	for at := page; at < size; at += page {
		wrong := bytes.Clone(state)
		clear(wrong[at : at+page])
		if got := next(t, restore(t, e, request, seal(wrong)), size/64); got == want {
			t.Errorf("the page at %d has no influence", at)
		}
	}
}

func TestStateBounds(t *testing.T) {
	for _, size := range []int{-1, 0, 1, kib - 1, wire.MaxState + 1} {
		e, err := engines.New("stateful", engines.Options{StateBytes: size})
		if err == nil || !strings.Contains(err.Error(), "allowed are 1024 to 67108864") {
			t.Errorf("%d bytes: %v and %v", size, e, err)
		}
	}
	for _, size := range []int{kib, wire.MaxState} {
		e := stateful(t, size)
		whole := generate(t, e, request, nil, 100)
		state := after(t, e, 50)
		if len(state) != size {
			t.Errorf("a state of %d bytes, not %d", len(state), size)
		}
		if got, want := next(t, restore(t, e, request, state), 50), string(bytes.Join(whole[50:], nil)); got != want {
			t.Errorf("%d bytes: got %q, want %q", size, got, want)
		}
	}
}

func TestSizesDoNotContinueEachOther(t *testing.T) {
	fingerprints, texts := make(map[string]int), make(map[string]int)
	for _, size := range []int{kib, kib + 1, 2 * kib, mib, mib + 1} {
		e := stateful(t, size)
		if other, ok := fingerprints[e.Fingerprint()]; ok {
			t.Errorf("%d bytes have the fingerprint of %d bytes", size, other)
		}
		text := next(t, open(t, e, request), 8)
		if other, ok := texts[text]; ok {
			t.Errorf("%d bytes have the text of %d bytes", size, other)
		}
		fingerprints[e.Fingerprint()], texts[text] = size, size
	}
}

func TestReplayRefusesForeignPrefixes(t *testing.T) {
	e := stateful(t, kib)
	other := request
	other.Seed++
	foreign := map[string][][]byte{
		"empty tokens":    {{}, {}},
		"another request": generate(t, e, other, nil, 10),
		"another size":    generate(t, stateful(t, 2*kib), request, nil, 10),
		"another engine":  generate(t, build(t, "markov"), request, nil, 10),
	}
	for i := range 10 {
		prefix := generate(t, e, request, nil, 10)
		prefix[i] = append(prefix[i], ' ')
		foreign[fmt.Sprintf("token %d", i+1)] = prefix
	}
	foreign["one missing"] = slices.Delete(generate(t, e, request, nil, 10), 3, 4)
	for name, prefix := range foreign {
		g, err := e.Open(t.Context(), request, chunks(prefix...), ignore)
		var coded *wire.Error
		if !errors.As(err, &coded) || coded.Code != wire.CodeDiverged || g != nil {
			t.Errorf("%s: %v and %v, want %s", name, g, err, wire.CodeDiverged)
		}
	}
}

// shortLived is a context that ends when it was asked a number of times whether it has.
type shortLived struct {
	context.Context
	asks int
}

func (c *shortLived) Err() error {
	if c.asks--; c.asks < 0 {
		return context.Canceled
	}
	return nil
}

func TestContextEnds(t *testing.T) {
	e, large := stateful(t, kib), stateful(t, 16*mib)
	prefix := generate(t, e, request, nil, 5000)
	state := after(t, e, 20)
	for _, c := range []struct {
		name string
		asks int
		call func(ctx context.Context) (engine.Generation, error)
	}{
		{"open", 0, func(ctx context.Context) (engine.Generation, error) { return e.Open(ctx, request, nil, ignore) }},
		{"filling", 7, func(ctx context.Context) (engine.Generation, error) { return large.Open(ctx, request, nil, ignore) }},
		{"replay", 2000, func(ctx context.Context) (engine.Generation, error) {
			return e.Open(ctx, request, chunks(prefix...), ignore)
		}},
		{"restore", 0, func(ctx context.Context) (engine.Generation, error) { return e.Restore(ctx, request, state) }},
	} {
		ctx := &shortLived{Context: t.Context(), asks: c.asks}
		if g, err := c.call(ctx); !errors.Is(err, context.Canceled) || g != nil {
			t.Errorf("%s: %v and %v", c.name, g, err)
		}
		if ctx.asks != -1 {
			t.Errorf("%s: went on after the end of its context", c.name)
		}
	}
}

// A thousand streams that come at once are opened one after another, and whoever gives up does not wait.
func TestOpensTakeTurns(t *testing.T) {
	e := stateful(t, 64*kib)
	first := &heldUp{Context: t.Context(), reached: make(chan struct{}), goOn: make(chan struct{})}
	opened := make(chan engine.Generation)
	begin := func(ctx context.Context) {
		g, err := e.Open(ctx, request, nil, ignore)
		if err != nil {
			t.Error(err)
		}
		opened <- g
	}
	go begin(first)
	<-first.reached
	go begin(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Open(ctx, request, nil, ignore); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	select {
	case <-opened:
		t.Error("opened beside another one")
	default:
	}
	close(first.goOn)
	for range 2 {
		if g := <-opened; next(t, g, 20) != next(t, open(t, e, request), 20) {
			t.Error("another text")
		}
	}
}

// heldUp stops whoever looks whether it has ended.
type heldUp struct {
	context.Context

	once          sync.Once
	reached, goOn chan struct{}
}

func (c *heldUp) Err() error {
	c.once.Do(func() { close(c.reached) })
	<-c.goOn
	return c.Context.Err()
}

// A call that was cut short must not have made half a token.
func TestNextAfterItsContextEnded(t *testing.T) {
	e := stateful(t, kib)
	g := open(t, e, request)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := g.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, want := next(t, g, 20), next(t, open(t, e, request), 20); got != want {
		t.Errorf("goes on with %q, not %q", got, want)
	}
}

// With -race it proves that generations share nothing that changes.
func TestGenerationsShareNothing(t *testing.T) {
	e := stateful(t, 2*kib)
	want := next(t, open(t, e, request), 300)
	state := after(t, e, 100)
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			g, within := open(t, e, request), strings.HasPrefix
			if i%2 == 1 {
				g, within = restore(t, e, request, state), strings.HasSuffix
			}
			var text string
			var buf []byte
			for range 200 {
				text += next(t, g, 1)
				buf = capture(t, g, buf[:0])
			}
			if !within(want, text) {
				t.Errorf("it reads %.60q …", text)
			}
		})
	}
}

// TestStatefulText pins the text: if it changes, statefulVersion has to.
func TestStatefulText(t *testing.T) {
	for size, want := range map[int]string{
		kib: "stateful/1/d915c353c1c6cab3 8e4b6c041533bf41",
		mib: "stateful/1/16756252a8df4083 897bb31988596f21",
	} {
		e := stateful(t, size)
		text := next(t, open(t, e, request), 20000)
		t.Logf("%.300s …", text)
		sum := sha256.Sum256([]byte(text))
		if got := fmt.Sprintf("%s %x", e.Fingerprint(), sum[:8]); got != want {
			t.Errorf("%d bytes: got %s, want %s", size, got, want)
		}
		count := make(map[string]int)
		for _, word := range strings.Fields(text) {
			count[word]++
		}
		for word, n := range count { // 39 on average
			if n > 80 {
				t.Errorf("%q stands there %d times", word, n)
			}
		}
		if len(count) != 512 {
			t.Errorf("%d different words", len(count))
		}
	}
}

// FuzzRestore looks for a state that is accepted although no engine captured it, and for one that breaks it.
func FuzzRestore(f *testing.F) {
	e := stateful(f, kib)
	captured := make(map[string]bool)
	for _, n := range []int{0, 1, 20} {
		state := after(f, e, n)
		captured[string(state)] = true
		f.Add(state)
		f.Add(state[:kib-1])
		f.Add(append(bytes.Clone(state), 0))
		f.Add(flip(state, 37*(n+1), 1))
	}
	f.Add([]byte{})
	f.Add(make([]byte, kib))
	f.Fuzz(func(t *testing.T, state []byte) {
		before := bytes.Clone(state)
		if _, err := e.Restore(t.Context(), request, state); (err == nil) != captured[string(state)] {
			t.Fatalf("got %v", err)
		}
		if !bytes.Equal(state, before) {
			t.Fatal("Restore changes the state that it is given")
		}
		if len(state) < kib {
			return
		}
		forged := seal(state)
		g, err := e.Restore(t.Context(), request, forged)
		if err != nil {
			return
		}
		if again := capture(t, g.(engine.Capturer), nil); !bytes.Equal(again, forged) {
			t.Error("what is captured is not what was restored")
		}
		next(t, g, 40)
	})
}

// flip returns state with some bits of a byte changed.
func flip(state []byte, at int, mask byte) []byte {
	state = bytes.Clone(state)
	state[at] ^= mask
	return state
}

// seal returns state with the checksum that makes it look undamaged.
func seal(state []byte) []byte {
	state = bytes.Clone(state)
	binary.LittleEndian.PutUint32(state, crc32.Checksum(state[4:], crc32.MakeTable(crc32.Castagnoli)))
	return state
}

func BenchmarkStateful(b *testing.B) {
	for _, size := range []int{mib, 16 * mib, 64 * mib} {
		e := stateful(b, size)
		g := open(b, e, request)
		state := capture(b, g, nil)
		perByte := func(b *testing.B, f func()) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		}
		name := func(what string) string { return fmt.Sprintf("%s/%dMiB", what, size/mib) }
		b.Run(name("Next"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name("Open"), func(b *testing.B) { perByte(b, func() { open(b, e, request) }) })
		b.Run(name("Capture"), func(b *testing.B) { perByte(b, func() { state = capture(b, g, state[:0]) }) })
		b.Run(name("CaptureFresh"), func(b *testing.B) { perByte(b, func() { capture(b, g, nil) }) })
		state = capture(b, open(b, e, request), state[:0])
		b.Run(name("Restore"), func(b *testing.B) { perByte(b, func() { restore(b, e, request, state) }) })
	}
}
