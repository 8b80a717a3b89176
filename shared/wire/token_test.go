package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

func TestTokensSurviveTheWire(t *testing.T) {
	for _, want := range []Token{
		{},
		{Session: 1, Epoch: 1, Sequence: 1, Text: []byte("a")},
		{Session: 63, Epoch: 64, Sequence: 16383, Text: []byte("boundaries of a varint")},
		{Session: 16384, Epoch: 1<<30 - 1, Sequence: 1 << 30, Text: []byte("more of them")},
		{Session: quicvarint.Max, Epoch: quicvarint.Max, Sequence: quicvarint.Max, Text: []byte("ж")},
		{Session: 9, Epoch: 2, Sequence: 5, Text: []byte("\x00\xff not text")},
		{Session: 9, Epoch: 2, Sequence: 6, Text: bytes.Repeat([]byte("x"), MaxToken)},
	} {
		stream := AppendLinkToken(nil, want)
		link := next(t, &stream, TypeLinkToken)
		if got, err := ParseLinkToken(link); err != nil || !equalToken(got, want) {
			t.Errorf("link: got %v, %v; want %v", got, err, want)
		}

		want.Session = 0
		stream = AppendToken(nil, want)
		client := next(t, &stream, TypeToken)
		if got, err := ParseToken(client); err != nil || !equalToken(got, want) {
			t.Errorf("client: got %v, %v; want %v", got, err, want)
		}
	}
}

func TestTokensAreLaidOutAsDocumented(t *testing.T) {
	token := Token{Session: 7, Epoch: 2, Sequence: 64, Text: []byte("hi")}
	if got, want := AppendToken(nil, token), "\x06\x02\x02\x40\x40hi"; string(got) != want {
		t.Errorf("client: %x, want %x", got, want)
	}
	if got, want := AppendLinkToken([]byte("kept"), token), "kept\x07\x20\x07\x02\x40\x40hi"; string(got) != want {
		t.Errorf("link: %x, want %x", got, want)
	}
}

func TestParseRefusesTokens(t *testing.T) {
	tooLong := "\x01\x01\x01" + strings.Repeat("x", MaxToken+1)
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
			if got, err := ParseLinkToken([]byte(tc.body)); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v; want %v", got, err, tc.want)
			}
			if tc.body == "" {
				return
			}
			if got, err := ParseToken([]byte(tc.body)[1:]); !errors.Is(err, tc.want) {
				t.Fatalf("without session: got %v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

// next takes the first frame from stream and checks its type.
func next(t testing.TB, stream *[]byte, want Type) []byte {
	t.Helper()
	src := bytes.NewReader(*stream)
	f, err := NewReader(io.LimitReader(src, int64(len(*stream))), MaxControl).Next()
	if err != nil || f.Type != want {
		t.Fatalf("got %v, %v; want %v", f.Type, err, want)
	}
	return bytes.Clone(f.Body)
}

func equalToken(a, b Token) bool {
	return a.Session == b.Session && a.Epoch == b.Epoch && a.Sequence == b.Sequence && bytes.Equal(a.Text, b.Text)
}
