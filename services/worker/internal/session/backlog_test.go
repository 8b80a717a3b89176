package session

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/wire"
)

// TestBacklog: what is kept is what was added and not forgotten, whatever the order.
func TestBacklog(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	const before = 7 // chunks of a prefix
	b := backlog{after: before}
	var all []string
	for range 20_000 {
		switch random.IntN(8) {
		case 0:
			b.forget(b.after + uint64(random.IntN(12)))
		default:
			text := strings.Repeat("x", random.IntN(5))
			c := wire.Chunk{Text: []byte(text)}
			if random.IntN(10) == 0 {
				c.Rich = &wire.Rich{Choice: 1, TokenIDs: []uint32{uint32(len(all))}, Data: []byte(text)}
			}
			all = append(all, text)
			b.add(c)
		}
		if b.last() > before+uint64(len(all)) || b.bytes > maxBacklog || b.bytes < 0 {
			t.Fatalf("last %d of %d, %d bytes", b.last(), before+len(all), b.bytes)
		}
	}
	next := b.after + 1
	if !b.since(b.after, func(c wire.Chunk) {
		if want := all[c.Sequence-before-1]; c.Sequence != next || string(c.Text) != want {
			t.Fatalf("chunk %d is %q, want %d %q", c.Sequence, c.Text, next, want)
		}
		if c.Rich != nil && c.Rich.TokenIDs[0] != uint32(c.Sequence-before-1) {
			t.Fatalf("chunk %d has %v", c.Sequence, c.Rich)
		}
		next++
	}) || next != b.last()+1 {
		t.Errorf("%d to %d are kept, came up to %d", b.after+1, b.last(), next-1)
	}
	b.forget(b.last() + 100)
	if b.bytes != 0 || len(b.text) != 0 || b.last() != before+uint64(len(all)) {
		t.Errorf("left when all is forgotten: %d bytes, %d of text, last %d", b.bytes, len(b.text), b.last())
	}
	if b.since(b.after-1, nil) || b.since(b.last()+1, nil) {
		t.Error("there is what was forgotten, or what never was")
	}
}

// TestBacklogIsBounded: a client that acknowledges nothing costs a bound.
func TestBacklogIsBounded(t *testing.T) {
	var b backlog
	for i := range 100 {
		b.add(wire.Chunk{Text: []byte(fmt.Sprintf("%*d", 20_000, i))})
		if b.bytes > maxBacklog || len(b.chunks) == 0 {
			t.Fatalf("%d bytes in %d chunks after %d", b.bytes, len(b.chunks), i+1)
		}
	}
	if b.last() != 100 {
		t.Errorf("last %d", b.last())
	}
}
