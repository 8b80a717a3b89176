package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// record is a log, what its owner was told, and a reader.
type record struct {
	*stream.Log
	notices []stream.Notice
	cursor  stream.Cursor
	all     bool // that there will be has been taken
}

func newRecord(cfg stream.Config) *record {
	r := &record{}
	r.Log = stream.New(cfg, &clock.StallProof{}, func(n stream.Notice) { r.notices = append(r.notices, n) })
	return r
}

// Begun says that the worker of an epoch begins.
func (r *record) Begun(epoch uint64) { r.Log.Begun(epoch, func() {}) }

func made(epoch, sequence uint64) wire.Chunk {
	return wire.Chunk{Epoch: epoch, Sequence: sequence, Text: []byte("x")}
}

// serve makes an epoch the present one, with a first token.
func (r *record) serve(epoch uint64) {
	r.Expect(epoch)
	r.Begun(epoch)
	r.Append(made(epoch, r.Len()+1), time.Now())
	r.Serve(epoch, "a", &wirepb.Assigned{Worker: "a", Epoch: epoch})
	r.notices = nil
}

// take reads everything, in pieces, and takes it.
func (r *record) take(piece int) (all []byte) {
	for {
		b, next := r.Read(r.cursor, piece)
		if len(b) == 0 {
			return all
		}
		all, r.cursor = append(all, b...), next
		r.all = r.Taken(next)
	}
}

// read reads everything, takes it, and puts it into words.
func (r *record) read(t *testing.T) string {
	t.Helper()
	b := r.take(1 << 20)
	var words []string
	frames := wire.NewReader(bytes.NewReader(b), wire.MaxControl)
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(words, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == wire.TypeToken {
			token, err := wire.ParseChunk(f)
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, fmt.Sprintf("%d/%d:%s", token.Epoch, token.Sequence, token.Text))
			continue
		}
		m, err := wire.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, fmt.Sprintf("%T", m)[len("*wirepb."):])
	}
}

// TestFence sends one token to a log in epoch 3 that has two tokens, or is moving to epoch 4.
func TestFence(t *testing.T) {
	streaming := func(r *record) {}
	moving := func(r *record) { r.Expect(4); r.Begun(4) }
	fenced := func(r *record) { r.Fence() }
	broken := func(epoch uint64) []stream.Notice { return []stream.Notice{{Kind: stream.Broken, Epoch: epoch}} }
	for _, c := range []struct {
		name    string
		state   func(*record)
		token   wire.Chunk
		length  uint64
		waits   bool
		fenced  uint64
		notices []stream.Notice
	}{
		{"the next one", streaming, made(3, 3), 3, false, 0, nil},
		{"older epoch, the next sequence", streaming, made(2, 3), 2, false, 1, nil},
		{"older epoch, a sequence seen before", streaming, made(1, 1), 2, false, 1, nil},
		{"newer epoch that nobody was given", streaming, made(9, 3), 2, false, 1, nil},
		{"epoch zero", fenced, made(0, 3), 2, false, 1, nil},
		{"empty", streaming, wire.Chunk{Epoch: 3, Sequence: 3}, 3, false, 0, nil},
		{"of many tokens", streaming, wire.Chunk{Epoch: 3, Sequence: 3, Rich: &wire.Rich{Tokens: 6}}, 3, false, 0, nil},
		{"of more tokens than are left", streaming, wire.Chunk{Epoch: 3, Sequence: 3, Rich: &wire.Rich{Tokens: 7}}, 2, false, 0, broken(3)},
		{"of a choice that was not asked for", streaming, wire.Chunk{Epoch: 3, Sequence: 3, Rich: &wire.Rich{Choice: 1, Tokens: 1}}, 2, false, 0, broken(3)},
		{"more than was asked for", streaming, made(3, 9), 2, false, 0, broken(3)},
		{"repeated", streaming, made(3, 2), 2, false, 0, broken(3)},
		{"one left out", streaming, made(3, 4), 2, false, 0, broken(3)},
		{"beyond its credit", streaming, made(3, 7), 2, false, 0, broken(3)},
		{"does not fit", streaming, wire.Chunk{Epoch: 3, Sequence: 3, Text: make([]byte, 99)}, 2, false, 0, []stream.Notice{{Kind: stream.Full, Epoch: 3}}},
		{"fenced", fenced, made(3, 3), 2, false, 1, nil},
		{"of the target", moving, made(4, 3), 2, true, 0, []stream.Notice{{Kind: stream.First, Epoch: 4}}},
		{"of the source, while moving", moving, made(3, 3), 2, false, 1, nil},
		{"of the target, not the next one", moving, made(4, 4), 2, false, 0, broken(4)},
		{"of the target, before it began", func(r *record) { r.Expect(4) }, made(4, 3), 2, false, 0, broken(4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecord(stream.Config{MaxBytes: 100, MaxTokens: 8, Window: 6})
			r.serve(3)
			r.Append(made(3, 2), time.Now())
			c.state(r)
			r.Append(c.token, time.Now())
			if s := r.Status(); s.Sequence != c.length || s.Fenced != c.fenced || r.Waits() != c.waits || !slices.Equal(r.notices, c.notices) {
				t.Errorf("%+v, waits %v, told %v; want %d tokens, %d fenced, waits %v, told %v",
					s, r.Waits(), r.notices, c.length, c.fenced, c.waits, c.notices)
			}
			if c.notices == nil || c.waits {
				return
			}
			r.Append(made(3, 3), time.Now())
			r.Append(made(4, 3), time.Now())
			if r.Len() != 2 {
				t.Error("a worker that broke the protocol is not fenced")
			}
		})
	}
}

// TestVerification has the tokens of a new epoch wait until it serves: the client sees what it was told before them.
func TestVerification(t *testing.T) {
	r := newRecord(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 10})
	begun := func(epoch uint64) (first bool) {
		r.Log.Begun(epoch, func() { first = true })
		return first
	}
	if begun(0) || begun(1) {
		t.Error("begun, and nobody was expected")
	}
	r.Expect(1)
	if !begun(1) || begun(1) || begun(2) {
		t.Error("it begins once")
	}
	r.Append(made(1, 1), time.Now())
	r.Append(made(1, 2), time.Now())
	if got := r.read(t); got != "" || r.Len() != 0 {
		t.Errorf("read %q before it was verified", got)
	}
	if _, ok := r.Serve(2, "a", &wirepb.Assigned{}); ok {
		t.Error("an epoch serves that nobody expects")
	}
	if _, ok := r.Serve(1, "a", &wirepb.Assigned{}); !ok || r.Status().Epoch != 1 {
		t.Error("it does not serve")
	}
	if got := r.read(t); got != "Assigned 1/1:x 1/2:x" {
		t.Errorf("read %q", got)
	}
	r.Append(made(1, 3), time.Now())
	if _, _, ok := r.Cut(2, 5); ok {
		t.Error("cut from an epoch that is over")
	}
	if credit, cut, ok := r.Cut(1, 5); !ok || cut != 3 || credit != 12 {
		t.Errorf("cut after %d, credit %d, %v", cut, credit, ok)
	}
	r.Append(made(1, 4), time.Now())
	r.Begun(5)
	r.Append(made(5, 4), time.Now())
	r.Serve(5, "a", &wirepb.Swapped{})
	r.Mark(&wirepb.Waiting{})
	r.Close(&wirepb.Done{})
	r.Mark(&wirepb.Waiting{})
	r.Append(made(5, 5), time.Now())
	if got := r.read(t); got != "1/3:x Swapped 5/4:x Waiting Done" {
		t.Errorf("read %q", got)
	}
	if !r.all || r.Status().Fenced != 2 {
		t.Errorf("all taken: %v, %+v", r.all, r.Status())
	}
}

// TestCredit grants more when the client has taken half a window, to the epoch that serves.
func TestCredit(t *testing.T) {
	r := newRecord(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 4})
	r.serve(1)
	var grants []uint64
	for sequence := uint64(2); sequence <= 9; sequence++ {
		r.read(t)
		if g, _, ok := r.Credit(1); ok {
			grants = append(grants, g)
		}
		if g, _, ok := r.Credit(2); ok {
			t.Errorf("granted %d to an epoch that does not serve", g)
		}
		r.Append(made(1, sequence), time.Now())
	}
	if got := fmt.Sprint(grants); got != "[6 8 10 12]" {
		t.Errorf("granted %s", got)
	}
	for sequence := uint64(10); sequence <= 12; sequence++ {
		r.Append(made(1, sequence), time.Now())
		if g, _, ok := r.Credit(1); ok {
			t.Errorf("granted %d although the client takes nothing", g)
		}
	}
	if !r.Exhausted() {
		t.Error("the worker may send more")
	}
	if credit := r.Expect(2); credit != 13 {
		t.Errorf("the next worker may send up to %d: one token at least is needed", credit)
	}
}

// TestAwait tells of one token, unless the epoch ends before it.
func TestAwait(t *testing.T) {
	r := newRecord(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 10})
	r.serve(1)
	r.Await()
	r.Append(made(1, 2), time.Now())
	r.Append(made(1, 3), time.Now())
	if want := []stream.Notice{{Kind: stream.Awaited, Epoch: 1}}; !slices.Equal(r.notices, want) {
		t.Errorf("told %v", r.notices)
	}
	r.Await()
	r.Fence()
	r.serve(2)
	r.Append(made(2, 5), time.Now())
	if len(r.notices) != 0 {
		t.Errorf("told %v", r.notices)
	}
}

// TestCadence learns a rhythm by the stall-proof clock and measures gaps with the wall clock.
func TestCadence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &clock.StallProof{}
		go clock.Run(t.Context(), func() {}) //nolint:errcheck // it ends with the bubble
		limits := stream.Timeouts{FirstToken: 30 * time.Second, TokenMin: time.Second, Factor: 4}
		l := stream.New(stream.Config{MaxBytes: 1000, MaxTokens: 1000, Window: 1000}, clock, func(stream.Notice) {})
		left := func() time.Duration { return l.Silence(limits, 1) }
		near := func(want time.Duration) {
			t.Helper()
			if got := left(); got < want-100*time.Millisecond || got > want+100*time.Millisecond {
				t.Errorf("%v left, want %v", got, want)
			}
		}
		n := uint64(0)
		token := func(epoch uint64, after time.Duration) {
			time.Sleep(after)
			n++
			l.Append(made(epoch, n), time.Now())
		}
		l.Expect(1)
		l.Begun(1, func() {})
		l.Serve(1, "a", &wirepb.Assigned{})
		near(30 * time.Second)
		token(1, 10*time.Second)
		near(30 * time.Second) // nothing is known of the rhythm
		for range 50 {
			token(1, 500*time.Millisecond)
		}
		near(2 * time.Second)
		if usual := l.Interval(); usual < 480*time.Millisecond || usual > 520*time.Millisecond {
			t.Errorf("interval %v", usual)
		}
		if got := l.Silence(limits, 2); got < 3900*time.Millisecond {
			t.Errorf("twice the time is %v", got)
		}
		time.Sleep(2100 * time.Millisecond)
		if got := left(); got > 0 {
			t.Errorf("after 2.1 s there are %v left", got)
		}
		l.Expect(2)
		l.Begun(2, func() {})
		token(2, 7*time.Millisecond)
		gap, _ := l.Serve(2, "a", &wirepb.Swapped{})
		if want := 2100*time.Millisecond + 7*time.Millisecond - 500*time.Millisecond; gap != want {
			t.Errorf("the gap is %v, want %v exactly", gap, want)
		}
		near(2 * time.Second) // the first token was there before it served
	})
}

// TestGapOfStalledClient has a client that lets its worker wait: that is no part of the rhythm, nor of the gap at a
// handover.
func TestGapOfStalledClient(t *testing.T) {
	for name, reads := range map[string]bool{"reads on": true, "reads nothing": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := &clock.StallProof{}
				go clock.Run(t.Context(), func() {}) //nolint:errcheck // it ends with the bubble
				r := &record{Log: stream.New(stream.Config{MaxBytes: 1000, MaxTokens: 1000, Window: 8}, clock, func(stream.Notice) {})}
				token := func(epoch uint64) {
					time.Sleep(100 * time.Millisecond)
					r.Append(made(epoch, r.Len()+1), time.Now())
				}
				r.serve(1)
				for range 30 {
					token(1)
					r.read(t)
					r.Credit(1)
				}
				for !r.Exhausted() {
					token(1)
				}
				for range 600 { // a minute, in which the owner looks at the time
					time.Sleep(100 * time.Millisecond)
					r.Silence(stream.Timeouts{}, 1)
				}
				want := time.Duration(0)
				if reads {
					r.read(t)
					r.Credit(1)
					token(1)
					want = 200 * time.Millisecond
					time.Sleep(want)
				}
				r.Expect(2)
				r.Begun(2)
				token(2)
				if gap, _ := r.Serve(2, "b", &wirepb.Swapped{}); gap < want || gap > want+2*100*time.Millisecond {
					t.Errorf("the gap is %v, want about %v", gap, want)
				}
			})
		})
	}
}

// chunkOf returns a chunk with a text; some of them are rich.
func chunkOf(random *rand.Rand, text []byte) wire.Chunk {
	c := wire.Chunk{Text: text}
	if random.IntN(4) > 0 {
		return c
	}
	c.Rich = &wire.Rich{Choice: random.Uint32N(2), Channel: wire.Channel(random.Uint32N(uint32(wire.Channels))), Tokens: random.Uint32N(3)}
	for range random.IntN(4) {
		c.Rich.TokenIDs = append(c.Rich.TokenIDs, random.Uint32())
	}
	if random.IntN(2) == 0 {
		c.Rich.Data = bytes.Repeat([]byte("d"), 1+random.IntN(wire.MaxChunkData))
	}
	return c
}

// sameChunk reports whether two chunks are the same, whoever made them.
func sameChunk(a, b wire.Chunk) bool {
	a.Epoch, a.Sequence, b.Epoch, b.Sequence = 0, 0, 0, 0
	return bytes.Equal(wire.AppendChunk(nil, a), wire.AppendChunk(nil, b))
}

// FuzzLog appends chunks of all lengths and kinds, and reads them in pieces; what was appended has to come out, whatever way it
// is asked for.
func FuzzLog(f *testing.F) {
	f.Add(uint64(1), uint16(10), uint16(100))
	f.Add(uint64(2), uint16(3000), uint16(7))
	f.Add(uint64(3), uint16(100), uint16(4096))
	f.Fuzz(func(t *testing.T, seed uint64, count, longest uint16) {
		random := rand.New(rand.NewPCG(seed, 0))
		r := newRecord(stream.Config{MaxBytes: 1 << 30, MaxTokens: 1 << 20, Choices: 2, Window: 1 << 20})
		r.serve(1)
		all := []wire.Chunk{made(1, 1)}
		var digest session.Rolling
		digest.Add(all[0])
		var read []byte
		for range count % 4096 {
			text := make([]byte, random.IntN(2+int(longest%wire.MaxChunk)))
			for i := range text {
				text[i] = byte(random.Uint32())
			}
			c := chunkOf(random, text)
			c.Epoch, c.Sequence = 1, uint64(len(all)+1)
			all = append(all, c)
			digest.Add(c)
			r.Append(c, time.Now())
			if random.IntN(8) == 0 {
				b, next := r.Read(r.cursor, random.IntN(10_000))
				read, r.cursor = append(read, b...), next
				r.all = r.Taken(next)
				if taken := r.Status().Taken; !endsWith(b, taken) {
					t.Fatalf("%d bytes were taken, up to token %d", len(b), taken)
				}
			}
		}
		read = append(read, r.take(1+random.IntN(10_000))...)
		if taken := r.Status().Taken; taken != uint64(len(all)) {
			t.Fatalf("%d tokens of %d were taken", taken, len(all))
		}
		frames := wire.NewReader(bytes.NewReader(read), wire.MaxControl)
		for i := -1; i < len(all); i++ {
			frame, err := frames.Next()
			if err != nil {
				t.Fatal(err)
			}
			if i < 0 {
				continue
			}
			if c, err := wire.ParseChunk(frame); err != nil || c.Sequence != uint64(i+1) || !sameChunk(c, all[i]) {
				t.Fatalf("chunk %d was read as %d, %v", i+1, c.Sequence, err)
			}
		}
		for _, after := range []int{0, 1, len(all) / 2, len(all) - 1, len(all), len(all) + 1, random.IntN(len(all))} {
			pack, sum := r.Since(uint64(after))
			chunks, _, err := pack.Split()
			if err != nil || !slices.EqualFunc(chunks, all[min(after, len(all)):], sameChunk) || sum != digest.Digest() {
				t.Fatalf("since %d: %d chunks, %v", after, len(chunks), err)
			}
		}
	})
}

// endsWith reports whether the last of the frames is the token with a sequence; or whether there is none.
func endsWith(b []byte, sequence uint64) bool {
	last := sequence
	for frames := wire.NewReader(bytes.NewReader(b), wire.MaxControl); ; {
		f, err := frames.Next()
		if err != nil {
			return errors.Is(err, io.EOF) && last == sequence
		}
		if token, err := wire.ParseChunk(f); err == nil && f.IsChunk() {
			last = token.Sequence
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	r := newRecord(stream.Config{MaxBytes: 1 << 40, MaxTokens: 1 << 40, Window: 1 << 40})
	r.serve(1)
	token, now := wire.Chunk{Epoch: 1, Sequence: 1, Text: bytes.Repeat([]byte("x"), 64)}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if token.Sequence%2000 == 0 {
			r = newRecord(stream.Config{MaxBytes: 1 << 40, MaxTokens: 1 << 40, Window: 1 << 40})
			r.serve(1)
			token.Sequence, r.cursor = 1, stream.Cursor{}
		}
		token.Sequence++
		r.Append(token, now)
		_, r.cursor = r.Read(r.cursor, 1024)
		r.Taken(r.cursor)
	}
}

// budget is so many bytes of memory.
type budget int

func (b *budget) Grow(bytes int) bool {
	if int(*b) < bytes {
		return false
	}
	*b -= budget(bytes)
	return true
}

// TestNoMemory: a log takes what it needs block by block; where there is none the stream's worker is told nothing, the
// owner is, and the last frame is there all the same.
func TestNoMemory(t *testing.T) {
	memory := budget(512 + 1024)
	r := newRecord(stream.Config{MaxBytes: 1 << 20, MaxTokens: 1000, Window: 1000, Memory: &memory})
	r.serve(3)
	for sequence := uint64(2); len(r.notices) == 0; sequence++ {
		r.Append(wire.Chunk{Epoch: 3, Sequence: sequence, Text: make([]byte, 50)}, time.Now())
		if sequence == 100 {
			t.Fatal("nothing ends it")
		}
	}
	if want := []stream.Notice{{Kind: stream.Starved, Epoch: 3}}; !slices.Equal(r.notices, want) || memory != 0 {
		t.Errorf("told %v, want %v; %d bytes are left", r.notices, want, memory)
	}
	length := r.Len()
	r.Append(wire.Chunk{Epoch: 3, Sequence: length + 1, Text: []byte("x")}, time.Now())
	if r.Len() != length || length < 20 {
		t.Errorf("%d tokens, then %d", length, r.Len())
	}
	r.Close(&wirepb.Done{FinishReason: strings.Repeat("x", 100)})
	var last wire.Frame
	for cursor := (stream.Cursor{}); ; {
		frames, next := r.Read(cursor, 1<<20)
		if len(frames) == 0 {
			break
		}
		for len(frames) > 0 {
			var size int
			last, size = wire.ParseFrame(frames)
			frames = frames[size:]
		}
		cursor = next
	}
	if m, err := wire.Decode(last); err != nil || len(m.(*wirepb.Done).GetFinishReason()) != 100 {
		t.Errorf("it ends with %v, %v", m, err)
	}
}
