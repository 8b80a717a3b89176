package identity

import (
	"crypto/rand"
	"encoding/hex"
)

// NewID returns 16 hex digits, random: for what has to be told apart from all others of its kind, such as a process from the
// one before it. It proves nothing; certificates do.
func NewID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	return hex.EncodeToString(id)
}
