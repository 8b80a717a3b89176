package session_test

import (
	"bytes"
	"errors"
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

func TestJournalTakesOnlyTheNextToken(t *testing.T) {
	j := session.NewJournal(8)
	for _, step := range []struct {
		sequence uint64
		text     string
		want     error
	}{
		{0, "a", session.ErrSequence},
		{2, "a", session.ErrSequence},
		{1, "abc", nil},
		{1, "abc", session.ErrSequence},
		{3, "abc", session.ErrSequence},
		{2, "", nil},
		{3, "defgh", nil},
		{4, "i", session.ErrFull},
		{4, "", nil},
	} {
		if err := j.Append(step.sequence, []byte(step.text)); !errors.Is(err, step.want) {
			t.Fatalf("Append(%d, %q) = %v, want %v", step.sequence, step.text, err, step.want)
		}
	}
	if j.Len() != 4 || j.Size() != 8 {
		t.Fatalf("journal has %d tokens and %d bytes", j.Len(), j.Size())
	}
}

func TestPrefixSurvivesTheWire(t *testing.T) {
	j := session.NewJournal(1 << 10)
	for i, text := range []string{"one", "", " two", ",", "drei"} {
		if err := j.Append(uint64(i+1), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	text, lengths := j.Prefix()
	if err := j.Append(6, []byte("later")); err != nil {
		t.Fatal(err)
	}
	tokens, digest, err := session.Split(text, lengths, 16)
	if err != nil || len(tokens) != 5 || string(bytes.Join(tokens, nil)) != "one two,drei" {
		t.Fatalf("Split = %q, %v", tokens, err)
	}
	before := digest.Digest()
	digest.Add([]byte("later"))
	if before == j.Digest() || digest.Digest() != j.Digest() {
		t.Fatal("digest of the prefix does not lead to the journal's")
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
		j := session.NewJournal(len(text))
		for i, token := range tokens {
			if len(token) > 64 {
				t.Fatalf("token of %d bytes", len(token))
			}
			if err := j.Append(uint64(i+1), token); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(bytes.Join(tokens, nil), text) || j.Digest() != digest.Digest() {
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
