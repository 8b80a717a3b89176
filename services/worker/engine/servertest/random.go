package servertest

import (
	"math/rand/v2"
	"sync"
)

// random draws ids and seeds. It is safe for concurrent use.
type random struct {
	mu     sync.Mutex
	source *rand.Rand
}

// newRandom returns one that draws the same for the same seed, or another one each time for 0.
func newRandom(seed uint64) *random {
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &random{source: rand.New(rand.NewPCG(seed, seed>>1))}
}

func (r *random) number() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source.Uint64()
}

// branch returns another one, so that what a request draws does not depend on what others draw meanwhile.
func (r *random) branch() *random { return newRandom(r.number() | 1) }

// text is so many characters of the alphabet.
func (r *random) text(length int, alphabet string) string {
	text := make([]byte, length)
	for i := range text {
		text[i] = alphabet[r.number()%uint64(len(alphabet))]
	}
	return string(text)
}

const (
	hexadecimal  = "0123456789abcdef"
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	lowercase    = "abcdefghijklmnopqrstuvwxyz0123456789"
)
