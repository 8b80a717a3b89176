package wire

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// raw builds a frame by hand, without the package's own encoder.
func raw(t Type, body string) []byte {
	typ := quicvarint.Append(nil, uint64(t))
	return append(append(quicvarint.Append(nil, uint64(len(typ)+len(body))), typ...), body...)
}

func TestReaderReturnsFramesInOrder(t *testing.T) {
	large := strings.Repeat("x", readBuffer+1)
	want := []Frame{
		{TypeHealthRequest, nil},
		{TypeToken, []byte("abc")},
		{TypeAttach, []byte(large)},
		{Type(1 << 40), []byte("a type of eight bytes")},
		{TypeError, []byte("last")},
	}
	var stream []byte
	for _, f := range want {
		stream = append(stream, raw(f.Type, string(f.Body))...)
	}
	for name, r := range map[string]io.Reader{
		"at once":        bytes.NewReader(stream),
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(stream)),
		"data with EOF":  iotest.DataErrReader(bytes.NewReader(stream)),
		"in halves":      iotest.HalfReader(bytes.NewReader(stream)),
		"as a real conn": &chunks{data: stream, sizes: []byte{1, 7, 250}},
	} {
		t.Run(name, func(t *testing.T) {
			frames := NewReader(r, MaxAttach)
			for _, w := range want {
				f, err := frames.Next()
				if err != nil || f.Type != w.Type || !bytes.Equal(f.Body, w.Body) {
					t.Fatalf("got %v with %d bytes, %v; want %v with %d", f.Type, len(f.Body), err, w.Type, len(w.Body))
				}
			}
			if _, err := frames.Next(); err != io.EOF { //nolint:errorlint // exactly io.EOF is promised
				t.Fatalf("at the end: %v", err)
			}
		})
	}
}

func TestReaderRefuses(t *testing.T) {
	boom := errors.New("boom")
	token := raw(TypeToken, strings.Repeat("x", 300))
	for _, tc := range []struct {
		name   string
		stream io.Reader
		want   error
	}{
		{"nothing", strings.NewReader(""), io.EOF},
		{"half a length", bytes.NewReader(token[:1]), io.ErrUnexpectedEOF},
		{"no type", bytes.NewReader(token[:2]), io.ErrUnexpectedEOF},
		{"half a body", bytes.NewReader(token[:100]), io.ErrUnexpectedEOF},
		{"all but one byte", bytes.NewReader(token[:len(token)-1]), io.ErrUnexpectedEOF},
		{"an empty frame", strings.NewReader("\x00"), ErrMalformed},
		{"half a type", strings.NewReader("\x01\x40"), ErrMalformed},
		{"one byte too many", bytes.NewReader(raw(TypeToken, strings.Repeat("x", 1000))), ErrTooLarge},
		{"the longest length", strings.NewReader("\xff\xff\xff\xff\xff\xff\xff\xff"), ErrTooLarge},
		{"a reset before a frame", iotest.ErrReader(boom), boom},
		{"a reset in a length", io.MultiReader(bytes.NewReader(token[:1]), iotest.ErrReader(boom)), boom},
		{"a reset in a body", io.MultiReader(bytes.NewReader(token[:50]), iotest.ErrReader(boom)), boom},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := NewReader(tc.stream, 1000).Next()
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v; want %v", f, err, tc.want)
			}
			if tc.want == io.ErrUnexpectedEOF && errors.Is(err, io.EOF) { //nolint:errorlint // a value of the table
				t.Fatal("a truncated frame looks like a clean end")
			}
		})
	}
}

// A peer that announces much and sends little must not cost much.
func TestReaderAllocatesAsBytesArrive(t *testing.T) {
	announced := quicvarint.Append(nil, MaxAttach)
	announced = append(announced, make([]byte, 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 10
	for range rounds {
		if _, err := NewReader(bytes.NewReader(announced), MaxAttach).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > 4*readBuffer {
		t.Fatalf("100 bytes of an announced %d cost %d bytes", MaxAttach, got)
	}
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, err := NewReaderSize(bytes.NewReader(announced), MaxAttach, SmallBuffer).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > 4*SmallBuffer {
		t.Fatalf("100 bytes of an announced %d cost %d bytes, with a small buffer", MaxAttach, got)
	}
}

func TestSmallReaderTakesLargeFrames(t *testing.T) {
	var stream []byte
	sizes := []int{0, SmallBuffer - 10, SmallBuffer, SmallBuffer + 1, 3 * SmallBuffer, 1 << 20, 5}
	for _, size := range sizes {
		stream = append(stream, raw(TypeGenerate, strings.Repeat("x", size))...)
	}
	frames := NewReaderSize(iotest.HalfReader(bytes.NewReader(stream)), 2<<20, SmallBuffer)
	for _, size := range sizes {
		f, err := frames.Next()
		if err != nil || len(f.Body) != size || strings.Trim(string(f.Body), "x") != "" {
			t.Fatalf("got %d bytes, %v; want %d", len(f.Body), err, size)
		}
	}
}

func TestReaderForgetsTheLargestFrame(t *testing.T) {
	huge := append(raw(TypeAttach, strings.Repeat("x", 17*readBuffer)), raw(TypeToken, "")...)
	r := NewReader(bytes.NewReader(huge), MaxAttach)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if cap(r.body) > 16*readBuffer {
		t.Fatalf("keeps %d bytes", cap(r.body))
	}
	if f, err := r.Next(); err != nil || f.Type != TypeToken {
		t.Fatal(f, err)
	}
}

func TestReaderDoesNotAllocatePerToken(t *testing.T) {
	var stream []byte
	for i := range uint64(1000) {
		stream = AppendLinkChunk(stream, Chunk{Session: i, Epoch: 1, Sequence: 7, Text: []byte(" word")})
	}
	src := bytes.NewReader(stream)
	r := NewReader(src, MaxControl)
	allocs := testing.AllocsPerRun(500, func() {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseLinkChunk(f); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Fatalf("%v allocations per token", allocs)
	}
}

func TestBuffered(t *testing.T) {
	two := append(raw(TypeToken, "abc"), raw(TypeToken, "defg")...)
	r := NewReader(bytes.NewReader(two), MaxControl)
	if n := r.Buffered(); n != 0 {
		t.Fatalf("%d bytes before the first read", n)
	}
	if _, err := r.Next(); err != nil || r.Buffered() != 6 {
		t.Fatalf("%d bytes of the second frame, %v", r.Buffered(), err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		frame Frame
		want  error
	}{
		{"no such type", Frame{Type: 0x0f}, ErrUnknownType},
		{"the largest type", Frame{Type: quicvarint.Max}, ErrUnknownType},
		{"a token", Frame{Type: TypeToken, Body: []byte("\x01\x01a")}, ErrUnknownType},
		{"not protobuf", Frame{Type: TypeWelcome, Body: []byte("\xff\xff\xff")}, ErrMalformed},
		{"text that is not UTF-8", Frame{Type: TypeError, Body: []byte("\x0a\x01\xff")}, ErrMalformed},
		{"a session beyond a varint", frameOf(t, &wirepb.Attach{Session: 1 << 62}), ErrMalformed},
		{"an epoch beyond a varint", frameOf(t, &wirepb.Attach{Epoch: 1<<64 - 1}), ErrMalformed},
		{"the largest epoch", frameOf(t, &wirepb.Attach{Session: quicvarint.Max, Epoch: quicvarint.Max}), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if m, err := Decode(tc.frame); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v; want %v", m, err, tc.want)
			}
		})
	}
}

func TestReadMessage(t *testing.T) {
	refusal := Errorf(CodeNoWorker, "none for %d s", 5)
	for _, tc := range []struct {
		name   string
		stream []byte
		want   error
	}{
		{"what was asked for", Append(nil, &wirepb.Welcome{ConnectionId: "conn-1"}), nil},
		{"an error instead", Append(nil, refusal.Proto()), refusal},
		{"something else", Append(nil, &wirepb.Begin{}), ErrUnexpected},
		{"an unknown type", raw(0x7f, ""), ErrUnknownType},
		{"rubbish", raw(TypeWelcome, "\xff"), ErrMalformed},
		{"too much", raw(TypeWelcome, strings.Repeat("x", MaxControl)), ErrTooLarge},
		{"nothing", nil, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := ReadMessage[*wirepb.Welcome](NewReader(bytes.NewReader(tc.stream), MaxControl))
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v; want %v", err, tc.want)
			}
			if (m.GetConnectionId() == "conn-1") != (tc.want == nil) {
				t.Fatalf("got %v", m)
			}
		})
	}
}

func TestReadMessageMayAskForAnError(t *testing.T) {
	r := NewReader(bytes.NewReader(Append(nil, Errorf(CodeLimit, "x").Proto())), MaxControl)
	if m, err := ReadMessage[*ErrorMessage](r); err != nil || Code(m.GetCode()) != CodeLimit {
		t.Fatal(m, err)
	}
}

// frameOf returns m as a receiver sees it.
func frameOf(t testing.TB, m Message) Frame {
	t.Helper()
	f, err := NewReader(bytes.NewReader(Append(nil, m)), MaxAttach).Next()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// chunks is a reader that returns data in pieces of the given sizes, again and again.
type chunks struct {
	data  []byte
	sizes []byte
	next  int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	size := 1
	if len(c.sizes) > 0 {
		size += int(c.sizes[c.next%len(c.sizes)])
		c.next++
	}
	n := copy(p[:min(size, len(p))], c.data)
	c.data = c.data[n:]
	return n, nil
}
