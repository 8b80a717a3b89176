package session

import (
	"slices"

	"github.com/connswap/connswap/shared/wire"
)

// maxBacklog bounds what a session keeps for its client, in bytes. Beyond it the oldest chunks are forgotten, whether they are
// acknowledged or not: from these on nobody can take the session over any more.
const maxBacklog = 256 << 10

// largestChunk is what one may take, with all that it can have.
const largestChunk = keptBytes + wire.MaxChunk + wire.MaxChunkData + 4*wire.MaxChunkTokens

// backlog is what a session has made and its client has not acknowledged. It is not safe for concurrent use.
type backlog struct {
	after  uint64 // sequence of the last chunk that is forgotten
	chunks []kept
	text   []byte // of all, one after the other
	bytes  int    // what they take
}

// kept is a chunk; its text lies in the backlog.
type kept struct {
	size uint32
	rich *wire.Rich
}

// keptBytes is what a chunk takes beside its text and what else it has.
const keptBytes = 16

func (k kept) bytes() int {
	n := keptBytes + int(k.size)
	if k.rich != nil {
		n += 4*len(k.rich.TokenIDs) + len(k.rich.Data)
	}
	return n
}

// last is the sequence of the newest chunk.
func (b *backlog) last() uint64 { return b.after + uint64(len(b.chunks)) }

// add keeps a copy of the next chunk.
func (b *backlog) add(c wire.Chunk) {
	k := kept{size: uint32(len(c.Text))}
	if c.Rich != nil {
		rich := *c.Rich
		rich.TokenIDs, rich.Data = slices.Clone(rich.TokenIDs), slices.Clone(rich.Data)
		k.rich = &rich
	}
	b.chunks, b.text = append(b.chunks, k), append(b.text, c.Text...)
	b.bytes += k.bytes()
	if b.bytes > maxBacklog { // down to a half: each chunk is moved once at most, on average
		b.forget(b.oldest(b.bytes - maxBacklog/2))
	}
}

// full reports whether the next chunk could cost one that is kept.
func (b *backlog) full() bool { return b.bytes > maxBacklog-largestChunk }

// oldest returns the sequence up to which the chunks take so many bytes at least.
func (b *backlog) oldest(bytes int) uint64 {
	sequence := b.after
	for _, k := range b.chunks {
		if bytes <= 0 {
			break
		}
		bytes -= k.bytes()
		sequence++
	}
	return sequence
}

// forget gives up the chunks up to a sequence.
func (b *backlog) forget(sequence uint64) {
	if sequence <= b.after {
		return
	}
	n, text := int(min(sequence-b.after, uint64(len(b.chunks)))), 0
	for _, k := range b.chunks[:n] {
		text += int(k.size)
		b.bytes -= k.bytes()
	}
	b.after += uint64(n)
	b.chunks = slices.Delete(b.chunks, 0, n)
	b.text = b.text[:copy(b.text, b.text[text:])]
}

// since calls put for each chunk after a sequence, with its own, or reports false where some of these are forgotten.
func (b *backlog) since(sequence uint64, put func(c wire.Chunk)) bool {
	if sequence < b.after || sequence > b.last() {
		return false
	}
	text := b.text
	for i, k := range b.chunks {
		own := text[:k.size:k.size]
		text = text[k.size:]
		if at := b.after + uint64(i) + 1; at > sequence {
			put(wire.Chunk{Sequence: at, Text: own, Rich: k.rich})
		}
	}
	return true
}
