package session

import (
	"errors"
	"fmt"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// ErrPrefix says that the parts of a Pack do not fit each other.
var ErrPrefix = errors.New("malformed prefix")

// Pack is how the chunks of a stream travel all at once: their texts one after the other, the length of each, and what
// some of them have beside that.
type Pack struct {
	Text    []byte
	Lengths []uint32
	Extras  []*wirepb.Extra
}

// Add adds the next chunk. It copies what it keeps.
func (p *Pack) Add(c wire.Chunk) {
	if r := c.Rich; !r.IsPlain() {
		p.Extras = append(p.Extras, &wirepb.Extra{
			Index: uint32(len(p.Lengths)), Choice: r.Choice, Channel: uint32(r.Channel), Tokens: r.Tokens,
			TokenIds: append([]uint32(nil), r.TokenIDs...), Data: append([]byte(nil), r.Data...),
		})
	}
	p.Text = append(p.Text, c.Text...)
	p.Lengths = append(p.Lengths, uint32(len(c.Text)))
}

// chunkBytes is what a chunk costs beside its text, in a slice of them.
const chunkBytes = 64

// Size is what the chunks take in memory once they are split, in bytes, about.
func (p Pack) Size() int {
	size := len(p.Text) + chunkBytes*len(p.Lengths)
	for _, e := range p.Extras {
		size += chunkBytes + 4*len(e.GetTokenIds()) + len(e.GetData())
	}
	return size
}

// Split returns the chunks, which alias the Pack, and their rolling digest. What it came with over the wire is checked.
func (p Pack) Split() ([]wire.Chunk, *Rolling, error) {
	d := &Rolling{}
	chunks := make([]wire.Chunk, len(p.Lengths))
	text, extras := p.Text, p.Extras
	for i, n := range p.Lengths {
		if n > wire.MaxChunk || int64(n) > int64(len(text)) {
			return nil, nil, fmt.Errorf("%w: chunk %d has %d bytes, %d are left", ErrPrefix, i+1, n, len(text))
		}
		c := wire.Chunk{Text: text[:n:n]}
		text = text[n:]
		if len(extras) > 0 && extras[0].GetIndex() == uint32(i) {
			c.Rich, extras = richOf(extras[0]), extras[1:]
			if err := c.Rich.Check(); err != nil {
				return nil, nil, fmt.Errorf("%w: chunk %d: %w", ErrPrefix, i+1, err)
			}
		}
		chunks[i] = c
		d.Add(c)
	}
	if len(text) != 0 || len(extras) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes and %d extras belong to no chunk", ErrPrefix, len(text), len(extras))
	}
	return chunks, d, nil
}

func richOf(e *wirepb.Extra) *wire.Rich {
	return &wire.Rich{
		Choice: e.GetChoice(), Channel: wire.Channel(e.GetChannel()), Tokens: e.GetTokens(), TokenIDs: e.GetTokenIds(), Data: e.GetData(),
	}
}

// Prefix returns the pack as part of an Attach.
func (p Pack) Prefix(d Digest) *wirepb.Prefix {
	return &wirepb.Prefix{Text: p.Text, Lengths: p.Lengths, Extras: p.Extras, Digest: d[:]}
}

// packed is a message that has a Pack.
type packed interface {
	GetText() []byte
	GetLengths() []uint32
	GetExtras() []*wirepb.Extra
}

// PackOf returns what a Prefix or a Feed has.
func PackOf(m packed) Pack { return Pack{m.GetText(), m.GetLengths(), m.GetExtras()} }
