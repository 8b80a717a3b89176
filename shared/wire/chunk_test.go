package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

func TestTokensSurviveTheWire(t *testing.T) {
	for _, want := range []Chunk{
		{},
		{Session: 1, Epoch: 1, Sequence: 1, Text: []byte("a")},
		{Session: 63, Epoch: 64, Sequence: 16383, Text: []byte("boundaries of a varint")},
		{Session: 16384, Epoch: 1<<30 - 1, Sequence: 1 << 30, Text: []byte("more of them")},
		{Session: quicvarint.Max, Epoch: quicvarint.Max, Sequence: quicvarint.Max, Text: []byte("ж")},
		{Session: 9, Epoch: 2, Sequence: 5, Text: []byte("\x00\xff not text")},
		{Session: 9, Epoch: 2, Sequence: 6, Text: bytes.Repeat([]byte("x"), MaxChunk)},
		{Session: 9, Epoch: 2, Sequence: 7, Rich: &Rich{}},
		{Session: 9, Epoch: 2, Sequence: 7, Text: []byte("thinks"), Rich: &Rich{Channel: Reasoning, Tokens: 2}},
		{Session: 9, Epoch: 2, Sequence: 7, Text: []byte("x"), Rich: &Rich{Tokens: 1, TokenIDs: []uint32{0, 1<<32 - 1}, Data: []byte("{}")}},
		{
			Session: quicvarint.Max, Epoch: quicvarint.Max, Sequence: quicvarint.Max, Text: bytes.Repeat([]byte("x"), MaxChunk),
			Rich: &Rich{
				Choice: MaxChoice, Channel: Channels - 1, Tokens: MaxChunkTokens,
				TokenIDs: slices.Repeat([]uint32{1<<32 - 1}, MaxChunkTokens), Data: bytes.Repeat([]byte("x"), MaxChunkData),
			},
		},
	} {
		stream := AppendLinkChunk(nil, want)
		link := next(t, &stream, TypeLinkToken, TypeLinkRich)
		if got, err := ParseLinkChunk(link); err != nil || !equalToken(got, want) {
			t.Errorf("link: got %v, %v; want %v", got, err, want)
		}

		want.Session = 0
		stream = AppendChunk(nil, want)
		client := next(t, &stream, TypeToken, TypeRich)
		if got, err := ParseChunk(client); err != nil || !equalToken(got, want) {
			t.Errorf("client: got %v, %v; want %v", got, err, want)
		}
	}
}

func TestTokensAreLaidOutAsDocumented(t *testing.T) {
	token := Chunk{Session: 7, Epoch: 2, Sequence: 64, Text: []byte("hi")}
	if got, want := AppendChunk(nil, token), "\x06\x02\x02\x40\x40hi"; string(got) != want {
		t.Errorf("client: %x, want %x", got, want)
	}
	if got, want := AppendLinkChunk([]byte("kept"), token), "kept\x07\x20\x07\x02\x40\x40hi"; string(got) != want {
		t.Errorf("link: %x, want %x", got, want)
	}
}

func TestParseRefusesTokens(t *testing.T) {
	tooLong := "\x01\x01\x01" + strings.Repeat("x", MaxChunk+1)
	for _, tc := range []struct {
		name, body string
		want       error
	}{
		{"empty", "", ErrMalformed},
		{"only a session", "\x01", ErrMalformed},
		{"no sequence", "\x01\x02", ErrMalformed},
		{"half a sequence", "\x01\x02\x80\x00", ErrMalformed},
		{"too much text", tooLong, ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := ParseLinkChunk(Frame{TypeLinkToken, []byte(tc.body)}); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v; want %v", got, err, tc.want)
			}
			if tc.body == "" {
				return
			}
			if got, err := ParseChunk(Frame{TypeToken, []byte(tc.body)[1:]}); !errors.Is(err, tc.want) {
				t.Fatalf("without session: got %v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

func TestParseRefusesRichChunks(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       error
	}{
		{"no sequence", "\x01", ErrMalformed},
		{"no choice", "\x01\x01", ErrMalformed},
		{"no ids", "\x01\x01\x00\x00\x01\x02\x07", ErrMalformed},
		{"no length", "\x01\x01\x00\x00\x01\x00", ErrMalformed},
		{"shorter than it says", "\x01\x01\x00\x00\x01\x00\x03ab", ErrMalformed},
		{"far shorter", "\x01\x01\x00\x00\x01\x00\xff\xff\xff\xff\xff\xff\xff\xffab", ErrMalformed},
		{"another choice", "\x01\x01\x40\x80\x00\x01\x00\x00", ErrTooLarge},
		{"another channel", "\x01\x01\x00\x04\x01\x00\x00", ErrMalformed},
		{"many tokens", "\x01\x01\x00\x00\x42\x01\x00\x00", ErrTooLarge},
		{"very many ids", "\x01\x01\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff", ErrTooLarge},
		{"a large id", "\x01\x01\x00\x00\x01\x01\xc0\x00\x00\x01\x00\x00\x00\x00\x00", ErrMalformed},
		{"much text", "\x01\x01\x00\x00\x02\x00\x50\x01" + strings.Repeat("x", MaxChunk+1), ErrTooLarge},
		{"much data", "\x01\x01\x00\x00\x01\x00\x00" + strings.Repeat("x", MaxChunkData+1), ErrTooLarge},
	} {
		if got, err := ParseChunk(Frame{TypeRich, []byte(tc.body)}); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
}

// next takes the first frame from stream and checks its type.
func next(t testing.TB, stream *[]byte, want ...Type) Frame {
	t.Helper()
	src := bytes.NewReader(*stream)
	f, err := NewReader(io.LimitReader(src, int64(len(*stream))), MaxControl).Next()
	if err != nil || !slices.Contains(want, f.Type) {
		t.Fatalf("got %v, %v; want %v", f.Type, err, want)
	}
	f.Body = bytes.Clone(f.Body)
	return f
}

func equalToken(a, b Chunk) bool {
	return a.Session == b.Session && a.Epoch == b.Epoch && a.Sequence == b.Sequence && bytes.Equal(a.Text, b.Text) &&
		(a.Rich.IsPlain() && b.Rich.IsPlain() || a.Rich != nil && b.Rich != nil && a.Rich.Choice == b.Rich.Choice && a.Rich.Channel == b.Rich.Channel &&
			a.Rich.Tokens == b.Rich.Tokens && slices.Equal(a.Rich.TokenIDs, b.Rich.TokenIDs) && bytes.Equal(a.Rich.Data, b.Rich.Data))
}
