// Package session holds what all roles agree on about one stream: its digest and its journal.
package session

import (
	"crypto/sha256"
	"encoding/hex"
)

// Digest is a rolling digest over the tokens of a stream: equal digests mean equal tokens, cut at the same
// places. The zero Digest is that of no tokens.
type Digest [sha256.Size]byte

// Add returns the digest after one more token: SHA-256(d || text).
func (d Digest) Add(text []byte) Digest {
	var stack [sha256.Size + 256]byte
	b := append(stack[:0], d[:]...)
	return sha256.Sum256(append(b, text...))
}

// Equal reports whether b, as it came over the wire, is this digest.
func (d Digest) Equal(b []byte) bool { return string(d[:]) == string(b) }

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }
