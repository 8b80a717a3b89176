package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// FuzzReader feeds a stream of any bytes in pieces of any size. What comes out must not depend on the pieces,
// must respect the limit, and must end in one of the documented errors.
func FuzzReader(f *testing.F) {
	frames := raw(TypeToken, "\x01\x01abc")
	frames = append(frames, raw(TypeHealthRequest, "")...)
	f.Add(frames, []byte{0}, uint32(1000))
	f.Add(frames, []byte{200, 1}, uint32(4))
	f.Add([]byte("\x9f\xff\xff\xff announces half a gigabyte"), []byte{3}, uint32(1<<30))
	f.Add(raw(TypeAttach, strings.Repeat("x", readBuffer+9)), []byte{255}, uint32(1<<20))
	f.Fuzz(func(t *testing.T, stream, sizes []byte, limit uint32) {
		bound := int(limit) % (MaxAttach + 1)
		whole := NewReader(bytes.NewReader(stream), bound)
		pieces := NewReader(&chunks{data: stream, sizes: sizes}, bound)
		for {
			a, errA := whole.Next()
			b, errB := pieces.Next()
			if a.Type != b.Type || !bytes.Equal(a.Body, b.Body) || !sameEnd(errA, errB) {
				t.Fatalf("at once: %v, %v; in pieces: %v, %v", a, errA, b, errB)
			}
			if errA != nil {
				break
			}
			if len(a.Body) >= bound {
				t.Fatalf("body of %d bytes, frames are limited to %d", len(a.Body), bound)
			}
		}
		// A reader may hold its buffer and as much again as has arrived, rounded up by append and by a chunk.
		if held, most := cap(pieces.body), 2*(len(stream)+readBuffer); held > most {
			t.Fatalf("holds %d bytes after a stream of %d", held, len(stream))
		}
	})
}

// sameEnd reports whether two errors are the same documented one, or both nil.
func sameEnd(a, b error) bool {
	if a == nil {
		return b == nil
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, ErrTooLarge, ErrMalformed} {
		if errors.Is(a, end) {
			return errors.Is(b, end)
		}
	}
	return false
}

// FuzzDecode decodes frames of any type and body. What decodes must survive another round trip.
func FuzzDecode(f *testing.F) {
	for typ, empty := range messages {
		f.Add(uint64(typ), frameOf(f, filled(empty)).Body)
	}
	f.Add(uint64(TypeToken), []byte("\x01\x01a"))
	f.Add(uint64(TypeError), []byte("\x0a\x01\xff"))
	f.Fuzz(func(t *testing.T, typ uint64, body []byte) {
		m, err := Decode(Frame{Type: Type(typ), Body: body})
		if err != nil {
			if !errors.Is(err, ErrUnknownType) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("undocumented error: %v", err)
			}
			return
		}
		again, err := Decode(frameOf(t, m))
		if err != nil || !proto.Equal(m, again) {
			t.Fatalf("%v became %v, %v", m, again, err)
		}
		if a, ok := m.(*wirepb.Attach); ok {
			AppendLinkChunk(nil, Chunk{Session: a.GetSession(), Epoch: a.GetEpoch()}) // must not panic
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add([]byte("\x01\x02text"))
	f.Add([]byte("\x40\x01\x80\x00\x00\x02longer than needed"))
	f.Fuzz(func(t *testing.T, body []byte) {
		fuzzChunk(t, Frame{TypeToken, body}, ParseChunk, AppendChunk)
	})
}

func FuzzRich(f *testing.F) {
	f.Add([]byte("\x01\x02\x00\x00\x01\x00\x04text"))
	f.Add([]byte("\x01\x02\x01\x02\x03\x02\x40\x07\x01\x04text{}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		fuzzChunk(t, Frame{TypeRich, body}, ParseChunk, AppendChunk)
	})
}

func FuzzLinkToken(f *testing.F) {
	f.Add([]byte("\x07\x01\x02text"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"))
	f.Fuzz(func(t *testing.T, body []byte) {
		fuzzChunk(t, Frame{TypeLinkToken, body}, ParseLinkChunk, AppendLinkChunk)
		fuzzChunk(t, Frame{TypeLinkRich, body}, ParseLinkChunk, AppendLinkChunk)
	})
}

// fuzzChunk parses any bytes as a chunk, and parses again what that chunk is framed as.
func fuzzChunk(t *testing.T, f Frame, parse func(Frame) (Chunk, error), frame func([]byte, Chunk) []byte) {
	t.Helper()
	chunk, err := parse(f)
	if err != nil {
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("undocumented error: %v", err)
		}
		return
	}
	if len(chunk.Text) > MaxChunk {
		t.Fatalf("text of %d bytes", len(chunk.Text))
	}
	framed := frame(nil, chunk)
	shortest := next(t, &framed, TypeToken, TypeLinkToken, TypeRich, TypeLinkRich)
	again, err := parse(shortest)
	if err != nil || !equalToken(again, chunk) {
		t.Fatalf("%v became %v, %v", chunk, again, err)
	}
	if len(shortest.Body) > len(f.Body) {
		t.Fatalf("%d bytes parsed, %d bytes framed", len(f.Body), len(shortest.Body))
	}
}

// FuzzText: whatever comes from outside can be shown, and is not changed a second time.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[2J\u202e", strings.Repeat("é", 1000), strings.Repeat("\xff", 3000), "a\nb\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for what, shown := range map[int]string{1 << 10: Text(s), 128: Name(s)} {
			if len(shown) > what || !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is shown as %q", s, shown)
			}
		}
		if once := Text(s); Text(once) != once {
			t.Errorf("%q becomes %q, and then %q", s, once, Text(once))
		}
	})
}
