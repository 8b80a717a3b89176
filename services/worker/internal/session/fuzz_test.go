package session

import (
	"bytes"
	"testing"

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
