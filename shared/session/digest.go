// Package session holds what all roles agree on about one stream: its digest, and how its tokens travel.
package session

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// Digest stands for all tokens of a stream: equal digests mean equal tokens, cut at the same places. It is
// SHA-256 over the tokens, each preceded by its length as an unsigned varint.
type Digest [sha256.Size]byte

// Equal reports whether b, as it came over the wire, is this digest.
func (d Digest) Equal(b []byte) bool { return string(d[:]) == string(b) }

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Rolling computes a Digest token by token. The zero value is that of no tokens. It is not safe for
// concurrent use.
type Rolling struct {
	hash   hash.Hash
	length [binary.MaxVarintLen64]byte // scratch: on the stack it would be allocated for each token
}

// Add adds the next token.
func (r *Rolling) Add(text []byte) {
	if r.hash == nil {
		r.hash = sha256.New()
	}
	n := binary.PutUvarint(r.length[:], uint64(len(text)))
	_, _ = r.hash.Write(r.length[:n]) // a hash never fails to take bytes
	_, _ = r.hash.Write(text)
}

// Digest returns the digest over the tokens so far.
func (r *Rolling) Digest() Digest {
	if r.hash == nil {
		return sha256.Sum256(nil)
	}
	var d Digest
	r.hash.Sum(d[:0])
	return d
}

// DigestOf returns the digest over tokens.
func DigestOf(tokens ...[]byte) Digest {
	var r Rolling
	for _, t := range tokens {
		r.Add(t)
	}
	return r.Digest()
}
