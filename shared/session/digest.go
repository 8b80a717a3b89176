// Package session holds what all roles agree on about one stream: its digest, and how its chunks travel.
package session

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"

	"github.com/connswap/connswap/shared/wire"
)

// Digest stands for all texts of a stream: equal digests mean equal bytes in each channel of each choice, wherever the
// chunks were cut. It is SHA-256 over what is known of each text that is not empty, in the order of choice and channel:
// these two and its length as unsigned varints, and SHA-256 over its bytes.
type Digest [sha256.Size]byte

// Equal reports whether b, as it came over the wire, is this digest.
func (d Digest) Equal(b []byte) bool { return string(d[:]) == string(b) }

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Rolling computes a Digest chunk by chunk. The zero value is that of no chunks. It is not safe for
// concurrent use.
type Rolling struct {
	content text            // of the first choice: the only text that most streams have
	others  map[place]*text // nil while there is none
}

// place says which text of a stream is meant.
type place struct {
	choice  uint32
	channel wire.Channel
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.choice, q.choice), cmp.Compare(p.channel, q.channel))
}

// text is one text of a stream.
type text struct {
	hash   hash.Hash
	length uint64
}

func (t *text) add(b []byte) {
	if t.hash == nil {
		t.hash = sha256.New()
	}
	_, _ = t.hash.Write(b) // a hash never fails to take bytes
	t.length += uint64(len(b))
}

// Add adds the text of the next chunk.
func (r *Rolling) Add(c wire.Chunk) {
	where := place{}
	if c.Rich != nil {
		where.choice, where.channel = c.Where()
	}
	switch {
	case len(c.Text) == 0:
	case where == place{}:
		r.content.add(c.Text)
	default:
		t := r.others[where]
		if t == nil {
			if r.others == nil {
				r.others = map[place]*text{}
			}
			t = &text{}
			r.others[where] = t
		}
		t.add(c.Text)
	}
}

// Digest returns the digest over the chunks so far.
func (r *Rolling) Digest() (d Digest) {
	all := sha256.New()
	sum := func(at place, t *text) {
		var b []byte
		for _, n := range []uint64{uint64(at.choice), uint64(at.channel), t.length} {
			b = binary.AppendUvarint(b, n)
		}
		_, _ = all.Write(t.hash.Sum(b))
	}
	if r.content.length > 0 {
		sum(place{}, &r.content)
	}
	for _, at := range slices.SortedFunc(maps.Keys(r.others), place.compare) {
		sum(at, r.others[at])
	}
	all.Sum(d[:0])
	return d
}

// DigestOf returns the digest over plain chunks with these texts.
func DigestOf(texts ...[]byte) Digest {
	var r Rolling
	for _, t := range texts {
		r.Add(wire.Chunk{Text: t})
	}
	return r.Digest()
}
