package stream

import (
	"errors"
	"fmt"

	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
)

// Errors of a journal.
var (
	errSequence = errors.New("sequence is not the next one")
	errFull     = errors.New("journal is full")
	errMemory   = errors.New("there is no memory for more")
)

// Sizes of blocks, in bytes. Blocks begin small, since most streams are short, and double.
const (
	smallestBlock = 512
	largestBlock  = 16 << 10
)

// chunkHeader is what a chunk's frame may have beside what Size counts, in bytes: length, type, epoch and sequence, and
// lengths and numbers of a rich one.
const chunkHeader = 4 + 1 + 8 + 8 + 4*5

// richBytes is what a chunk that is more than a token of plain content counts beside what it has, in bytes.
const richBytes = 16

// journal is the accepted prefix of a stream, in the form in which its client gets it: the frames of its tokens, and
// between them those of its marks. A token is copied here once, and a leg hands on what lies here. It only grows, block
// by block, so that what it has is never copied again. It is not safe for concurrent use.
type journal struct {
	last    *block
	tokens  uint64 // chunks, that is the sequence of the last one
	records uint64 // chunks and marks
	weight  uint64 // tokens that the chunks stand for
	bytes   int    // of text, and of what chunks have beside it
	limit   int    // of bytes
	memory  Memory

	first  *block
	digest session.Rolling // over the chunks before hashed
	hashed position
}

// block is a run of frames.
type block struct {
	frames []byte // never changed, never beyond its first capacity: readers have slices of it
	next   *block // nil as long as frames may be added

	// Once there is a next block: how many there are here and before.
	tokens, records uint64
}

// position is a place between two frames. The zero value is that before the first.
type position struct {
	block  *block
	offset int
}

// append adds the token with the given sequence, which must be the next one. It copies the text.
func (j *journal) append(t *wire.Chunk) error {
	if t.Sequence != j.tokens+1 {
		return fmt.Errorf("%w: got %d after %d", errSequence, t.Sequence, j.tokens)
	}
	size := t.Size()
	if t.Rich != nil {
		size += richBytes // so that what brings no text ends as well
	}
	if j.bytes+size > j.limit {
		return fmt.Errorf("%w: %d bytes", errFull, j.limit)
	}
	need := chunkHeader + size
	if t.Rich != nil {
		need += 4 * len(t.Rich.TokenIDs) // a large one takes 8 bytes in a frame
	}
	b, ok := j.room(need)
	if !ok {
		return errMemory
	}
	b.frames = wire.AppendChunk(b.frames, *t)
	j.tokens++
	j.records++
	j.weight += uint64(t.Tokens())
	j.bytes += size
	return nil
}

// snapshot returns the journal as it is now.
func (j *journal) snapshot() snapshot {
	s := snapshot{tokens: j.tokens, records: j.records, weight: j.weight, bytes: j.bytes}
	if j.last != nil {
		s.position = position{j.last, len(j.last.frames)}
	}
	return s
}

// restore takes the journal back to what it was. Nobody may have read what came after that.
func (j *journal) restore(s snapshot) {
	j.tokens, j.records, j.weight, j.bytes = s.tokens, s.records, s.weight, s.bytes
	if j.last = s.block; j.last == nil {
		j.first = nil
	} else {
		j.last.frames, j.last.next = j.last.frames[:s.offset], nil
	}
	j.digest, j.hashed = session.Rolling{}, position{}
}

// mark adds a frame that is no token. It is small, and has to get to the client: there always is memory for it.
func (j *journal) mark(m wire.Message) {
	frame := wire.Append(nil, m)
	b, ok := j.room(len(frame))
	if !ok {
		b = j.grow(len(frame))
	}
	b.frames = append(b.frames, frame...)
	j.records++
}

// room returns the last block, or a new one, with room for size bytes more; false if there is no memory for that.
func (j *journal) room(size int) (*block, bool) {
	b := j.last
	if b != nil && len(b.frames)+size <= cap(b.frames) {
		return b, true
	}
	capacity := smallestBlock
	if b != nil {
		capacity = min(2*cap(b.frames), largestBlock)
	}
	capacity = max(capacity, size)
	if j.memory != nil && !j.memory.Grow(capacity) {
		return nil, false
	}
	return j.grow(capacity), true
}

// grow adds a block.
func (j *journal) grow(capacity int) *block {
	b := j.last
	j.last = &block{frames: make([]byte, 0, capacity)}
	if b == nil {
		j.first = j.last
		return j.last
	}
	b.next, b.tokens, b.records = j.last, j.tokens, j.records
	j.hash() // here rather than token by token: that would be three more cache lines for each
	return j.last
}

// hash brings the digest to the last token.
func (j *journal) hash() {
	for c, ok := j.chunk(&j.hashed); ok; c, ok = j.chunk(&j.hashed) {
		j.digest.Add(c)
	}
}

// sum returns the digest over all tokens.
func (j *journal) sum() session.Digest {
	j.hash()
	return j.digest.Digest()
}

// since returns copies of the chunks after a sequence.
func (j *journal) since(sequence uint64) (pack session.Pack) {
	sequence = min(sequence, j.tokens)
	if sequence == 0 {
		pack.Text = make([]byte, 0, j.bytes)
	}
	pack.Lengths = make([]uint32, 0, j.tokens-sequence)
	p, at := position{block: j.first}, uint64(0)
	for p.block != nil && p.block.next != nil && p.block.tokens <= sequence {
		p.block, at = p.block.next, p.block.tokens
	}
	for c, ok := j.chunk(&p); ok; c, ok = j.chunk(&p) {
		if at++; at > sequence {
			pack.Add(c)
		}
	}
	return pack
}

// chunk returns the next chunk after a position, which it moves on, or false at the end. Its memory must not be changed.
func (j *journal) chunk(p *position) (c wire.Chunk, ok bool) {
	for j.more(p) {
		f, size := wire.ParseFrame(p.block.frames[p.offset:])
		p.offset += size
		if f.IsChunk() {
			c, _ = wire.ParseChunk(f) // this package wrote it
			return c, true
		}
	}
	return wire.Chunk{}, false
}

// at returns the position behind the first records, and how many of these are tokens. There must be as many.
func (j *journal) at(records uint64) (p position, tokens uint64) {
	p = position{block: j.first}
	for before := uint64(0); before < records; {
		if b := p.block; p.offset == 0 && b.next != nil && b.records <= records {
			p, before, tokens = position{block: b.next}, b.records, b.tokens
			continue
		}
		f, size := wire.ParseFrame(p.block.frames[p.offset:])
		p.offset += size
		before++
		if f.IsChunk() {
			tokens++
		}
	}
	return p, tokens
}

// before returns all frames before a position, as runs that stay as they are.
func (j *journal) before(p position) (runs [][]byte) {
	for b := j.first; b != nil; b = b.next {
		if b == p.block {
			return append(runs, b.frames[:p.offset])
		}
		runs = append(runs, b.frames)
	}
	return runs
}

// more reports whether a frame follows a position, which it moves on to that frame's block.
func (j *journal) more(p *position) bool {
	if p.block == nil {
		p.block = j.first
	}
	for p.block != nil && p.offset == len(p.block.frames) && p.block.next != nil {
		*p = position{block: p.block.next}
	}
	return p.block != nil && p.offset < len(p.block.frames)
}
