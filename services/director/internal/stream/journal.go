package stream

import (
	"errors"
	"fmt"
	"slices"

	"github.com/connswap/connswap/shared/session"
)

// Errors of a journal.
var (
	errSequence = errors.New("sequence is not the next one")
	errFull     = errors.New("journal is full")
)

// Bounds of a block's text, in bytes. Blocks begin small, since most streams are short, and double.
const (
	smallestBlock = 512
	largestBlock  = 16 << 10
)

// journal is the accepted prefix of a stream: its tokens in order and the digest over them. It only grows, block by block, so that what it has is
// never copied again. It is not safe for concurrent use.
type journal struct {
	blocks []*block
	tokens uint64
	bytes  int
	limit  int // of bytes
	digest session.Rolling
}

// block is a run of tokens.
type block struct {
	first   uint64 // sequence of its first token
	text    []byte // of all its tokens; never beyond its first capacity
	lengths []uint16
}

// append adds the token with the given sequence, which must be the next one. It copies text.
func (j *journal) append(sequence uint64, text []byte) error {
	if sequence != j.tokens+1 {
		return fmt.Errorf("%w: got %d after %d", errSequence, sequence, j.tokens)
	}
	if j.bytes+len(text) > j.limit {
		return fmt.Errorf("%w: %d bytes", errFull, j.limit)
	}
	b := j.last(len(text))
	b.text = append(b.text, text...)
	b.lengths = append(b.lengths, uint16(len(text))) // a token is shorter than wire.MaxToken
	j.tokens++
	j.bytes += len(text)
	j.digest.Add(text)
	return nil
}

// last returns a block that has room for size bytes more.
func (j *journal) last(size int) *block {
	capacity := smallestBlock
	if n := len(j.blocks); n > 0 {
		b := j.blocks[n-1]
		if len(b.text)+size <= cap(b.text) {
			return b
		}
		capacity = min(2*cap(b.text), largestBlock)
	}
	b := &block{first: j.tokens + 1, text: make([]byte, 0, max(capacity, size))}
	j.blocks = append(j.blocks, b)
	return b
}

// since returns the tokens after a sequence: their bytes, one after the other, and the length of each. Both are copies.
func (j *journal) since(sequence uint64) (text []byte, lengths []uint32) {
	p := j.after(sequence)
	size := 0
	if sequence == 0 {
		size = j.bytes
	}
	text, lengths = make([]byte, 0, size), make([]uint32, 0, j.tokens-min(sequence, j.tokens))
	for t, ok := j.next(&p); ok; t, ok = j.next(&p) {
		text, lengths = append(text, t...), append(lengths, uint32(len(t)))
	}
	return text, lengths
}

// position is a place between two tokens. The zero value is that before the first.
type position struct{ block, token, offset int }

// after returns the position after a sequence.
func (j *journal) after(sequence uint64) position {
	if sequence >= j.tokens {
		return position{block: len(j.blocks)}
	}
	i, found := slices.BinarySearchFunc(j.blocks, sequence+1, func(b *block, first uint64) int {
		switch {
		case b.first < first:
			return -1
		case b.first > first:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	p := position{block: i}
	for b := j.blocks[i]; b.first+uint64(p.token) <= sequence; p.token++ {
		p.offset += int(b.lengths[p.token])
	}
	return p
}

// next returns the token after a position, which it moves on, or false at the end. The text must not be changed.
func (j *journal) next(p *position) (text []byte, ok bool) {
	for p.block < len(j.blocks) {
		b := j.blocks[p.block]
		if p.token < len(b.lengths) {
			end := p.offset + int(b.lengths[p.token])
			text = b.text[p.offset:end]
			p.token, p.offset = p.token+1, end
			return text, true
		}
		if p.block == len(j.blocks)-1 {
			return nil, false
		}
		*p = position{block: p.block + 1}
	}
	return nil, false
}
