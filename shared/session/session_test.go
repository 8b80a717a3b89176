package session_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/connswap/connswap/shared/session"
)

func TestDigestDependsOnTheCuts(t *testing.T) {
	a := session.DigestOf([]byte("ab"), []byte("c"))
	b := session.DigestOf([]byte("a"), []byte("bc"))
	if a == b {
		t.Fatal("the same text cut elsewhere has the same digest")
	}
	if !a.Equal(a[:]) || a.Equal(b[:]) || a.Equal(a[:31]) || a.Equal(nil) {
		t.Fatal("Equal does not compare whole digests")
	}
	long := bytes.Repeat([]byte("x"), 4096)
	if session.DigestOf(long) == session.DigestOf(long[:4095]) {
		t.Fatal("the end of a long token does not count")
	}
	var r session.Rolling
	if r.Digest() != session.DigestOf() {
		t.Fatal("no tokens have two digests")
	}
	r.Add(nil)
	if r.Digest() == session.DigestOf() {
		t.Fatal("an empty token does not count")
	}
	for range 2 { // asking does not change it
		if r.Digest() != session.DigestOf(nil) {
			t.Fatal("the digest of one empty token is not that of one empty token")
		}
	}
}

func TestSplit(t *testing.T) {
	all := [][]byte{[]byte("one"), nil, []byte(" two"), []byte(","), []byte("drei")}
	text, lengths := bytes.Join(all, nil), []uint32{3, 0, 4, 1, 4}
	tokens, digest, err := session.Split(text, lengths, 4)
	if err != nil || !slices.EqualFunc(tokens, all, bytes.Equal) {
		t.Fatalf("Split = %q, %v", tokens, err)
	}
	digest.Add([]byte("later"))
	if digest.Digest() != session.DigestOf(append(all, []byte("later"))...) {
		t.Fatal("digest of the prefix does not lead to that of more tokens")
	}
	for name, c := range map[string]struct {
		lengths  []uint32
		maxToken int
	}{
		"a token too long":   {lengths, 3},
		"more than the text": {append(lengths, 1), 4},
		"less than the text": {lengths[:4], 4},
		"a huge length":      {[]uint32{1<<32 - 1}, 1 << 40},
	} {
		if _, _, err := session.Split(text, c.lengths, c.maxToken); !errors.Is(err, session.ErrPrefix) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("abc"), []byte{1, 2})
	f.Add([]byte("abc"), []byte{1, 200})
	f.Add([]byte{}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, text, lens []byte) {
		lengths := make([]uint32, len(lens))
		for i, n := range lens {
			lengths[i] = uint32(n) << (n % 25)
		}
		tokens, digest, err := session.Split(text, lengths, 64)
		if err != nil {
			return
		}
		for _, token := range tokens {
			if len(token) > 64 {
				t.Fatalf("token of %d bytes", len(token))
			}
		}
		if !bytes.Equal(bytes.Join(tokens, nil), text) || session.DigestOf(tokens...) != digest.Digest() {
			t.Fatal("tokens are not the text")
		}
	})
}

func BenchmarkRolling(b *testing.B) {
	var r session.Rolling
	token := []byte(" lantern")
	b.ReportAllocs()
	for b.Loop() {
		r.Add(token)
	}
}
