package server

import (
	"bytes"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// FuzzPrefix: a prefix is what the director has a digest of, or it is refused.
func FuzzPrefix(f *testing.F) {
	sum := session.DigestOf([]byte("The river"))
	for _, p := range []*wirepb.Prefix{
		nil,
		{},
		{Text: []byte("The river"), Lengths: []uint32{3, 6}, Digest: sum[:]},
		{Text: []byte("The river"), Lengths: []uint32{3, 6}},
		{Lengths: []uint32{1<<32 - 1}},
		{Lengths: []uint32{0}, Digest: sum[:], Extras: []*wirepb.Extra{{Choice: 3, Tokens: 1, TokenIds: []uint32{7}}}},
	} {
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &wirepb.Prefix{}
		if proto.Unmarshal(b, p) != nil {
			return
		}
		chunks, digest, refusal := readPrefix(p)
		if refusal != nil {
			if refusal.Code != wire.CodeInvalid && refusal.Code != wire.CodeDiverged {
				t.Errorf("refused with %v", refusal)
			}
			return
		}
		var text []byte
		for _, c := range chunks {
			text = append(text, c.Text...)
			if err := c.Check(); err != nil {
				t.Error(err)
			}
		}
		if !bytes.Equal(text, p.GetText()) || len(chunks) != len(p.GetLengths()) {
			t.Errorf("%q became %q", p.GetText(), text)
		}
		if here := digest.Digest(); len(chunks) > 0 && !here.Equal(p.GetDigest()) {
			t.Error("another digest passes")
		}
	})
}

// FuzzTether: a tether begins with an id, or is none; nothing behind that is read.
func FuzzTether(f *testing.F) {
	for _, s := range []string{"0123456789abcdef\n", "0123456789abcdef", "", "0123456789abcdefg\n", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nrest"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := &said{Reader: bytes.NewReader(b)}
		id, err := readTether(conn)
		whole := len(b) > tetherID && b[tetherID] == '\n'
		if (err == nil) != whole || whole && id != string(b[:tetherID]) {
			t.Errorf("%q: %q, %v", b, id, err)
		}
		if rest := conn.Len(); rest != max(0, len(b)-tetherID-1) {
			t.Errorf("%d of %d bytes are left", rest, len(b))
		}
	})
}

// said is a connection on which somebody says something.
type said struct {
	net.Conn
	*bytes.Reader
}

func (s *said) Read(p []byte) (int, error)      { return s.Reader.Read(p) }
func (s *said) SetReadDeadline(time.Time) error { return nil }
