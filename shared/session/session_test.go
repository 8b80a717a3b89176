package session_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func chunk(text string, choice uint32, channel wire.Channel) wire.Chunk {
	return wire.Chunk{Text: []byte(text), Rich: &wire.Rich{Choice: choice, Channel: channel, Tokens: 1}}
}

func digestOf(chunks ...wire.Chunk) session.Digest {
	var r session.Rolling
	for _, c := range chunks {
		r.Add(c)
	}
	return r.Digest()
}

// TestDigest: what counts are the bytes of each text, and whose they are; not the cuts, nor the order between texts.
func TestDigest(t *testing.T) {
	a := session.DigestOf([]byte("ab"), []byte("c"))
	if a != session.DigestOf([]byte("a"), nil, []byte("bc")) || a != digestOf(chunk("abc", 0, wire.Content)) {
		t.Error("the same text cut elsewhere has another digest")
	}
	if !a.Equal(a[:]) || a.Equal(a[:31]) || a.Equal(nil) {
		t.Error("Equal does not compare whole digests")
	}
	two := digestOf(chunk("a", 0, wire.Content), chunk("x", 1, wire.Content), chunk("b", 0, wire.Content))
	if two != digestOf(chunk("x", 1, wire.Content), chunk("ab", 0, wire.Content)) {
		t.Error("the order of chunks of different choices counts")
	}
	all := map[session.Digest]string{}
	for name, d := range map[string]session.Digest{
		"nothing":              digestOf(),
		"ab":                   session.DigestOf([]byte("ab")),
		"ab of another choice": digestOf(chunk("ab", 1, wire.Content)),
		"ab as reasoning":      digestOf(chunk("ab", 0, wire.Reasoning)),
		"a and b":              digestOf(chunk("a", 0, wire.Content), chunk("b", 1, wire.Content)),
		"b and a":              digestOf(chunk("b", 0, wire.Content), chunk("a", 1, wire.Content)),
		"a, then thinking":     digestOf(chunk("a", 0, wire.Content), chunk("b", 0, wire.Reasoning)),
		"long":                 session.DigestOf(bytes.Repeat([]byte("x"), 4096)),
		"almost as long":       session.DigestOf(bytes.Repeat([]byte("x"), 4095)),
	} {
		if other, ok := all[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		all[d] = name
	}
	var r session.Rolling
	if again := r.Digest(); r.Digest() != again || again != digestOf(chunk("", 3, wire.ToolCall)) {
		t.Error("nothing has two digests")
	}
}

func TestPack(t *testing.T) {
	all := []wire.Chunk{
		{Text: []byte("one")},
		{Text: []byte{}},
		chunk(" two", 1, wire.Reasoning),
		{Text: []byte(",")},
		{Text: []byte("drei"), Rich: &wire.Rich{Tokens: 2, TokenIDs: []uint32{7, 1 << 31}, Data: []byte("{}")}},
	}
	var p session.Pack
	for _, c := range all {
		p.Add(c)
	}
	chunks, digest, err := p.Split()
	if err != nil || !reflect.DeepEqual(chunks, all) {
		t.Fatalf("Split = %v, %v", chunks, err)
	}
	digest.Add(wire.Chunk{Text: []byte("later")})
	if digest.Digest() != digestOf(append(all, wire.Chunk{Text: []byte("later")})...) {
		t.Error("the digest of the prefix does not lead to that of more chunks")
	}
	if again := session.PackOf(p.Prefix(digest.Digest())); !reflect.DeepEqual(again, p) {
		t.Errorf("%v became %v", p, again)
	}
	for name, change := range map[string]func(*session.Pack){
		"a chunk too long":      func(p *session.Pack) { p.Text, p.Lengths = make([]byte, wire.MaxChunk+1), []uint32{wire.MaxChunk + 1} },
		"more than the text":    func(p *session.Pack) { p.Lengths = append(p.Lengths, 1) },
		"less than the text":    func(p *session.Pack) { p.Lengths = p.Lengths[:4] },
		"a huge length":         func(p *session.Pack) { p.Lengths = []uint32{1<<32 - 1} },
		"extras of no chunk":    func(p *session.Pack) { p.Extras = append(p.Extras, &wirepb.Extra{Index: 9}) },
		"extras out of order":   func(p *session.Pack) { p.Extras[0], p.Extras[1] = p.Extras[1], p.Extras[0] },
		"extras twice":          func(p *session.Pack) { p.Extras = append(p.Extras, p.Extras[1]) },
		"a choice out of range": func(p *session.Pack) { p.Extras[0] = &wirepb.Extra{Index: 2, Choice: 1 << 31} },
	} {
		other := session.Pack{Text: p.Text, Lengths: p.Lengths, Extras: append([]*wirepb.Extra(nil), p.Extras...)}
		change(&other)
		if _, _, err := other.Split(); !errors.Is(err, session.ErrPrefix) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("abc"), []byte{1, 2}, []byte{0, 1, 2})
	f.Add([]byte("abc"), []byte{1, 200}, []byte{})
	f.Add([]byte{}, []byte{0, 0}, []byte{1, 255, 255})
	f.Fuzz(func(t *testing.T, text, lens, extras []byte) {
		p := session.Pack{Text: text}
		for _, n := range lens {
			p.Lengths = append(p.Lengths, uint32(n)<<(n%25))
		}
		for ; len(extras) >= 3; extras = extras[3:] {
			p.Extras = append(p.Extras, &wirepb.Extra{
				Index: uint32(extras[0]), Choice: uint32(extras[1]), Channel: uint32(extras[2]), Tokens: uint32(extras[2]),
			})
		}
		chunks, digest, err := p.Split()
		if err != nil {
			return
		}
		var again session.Pack
		for _, c := range chunks {
			again.Add(c)
		}
		_, same, err := again.Split()
		if err != nil || !bytes.Equal(again.Text, text) || same.Digest() != digest.Digest() {
			t.Fatalf("%v became %v, %v", p, again, err)
		}
	})
}
