package wire

import (
	"fmt"

	"github.com/quic-go/quic-go/quicvarint"
)

// Chunk is what an engine made of a stream in one go. Its memory aliases the frame that it was parsed from.
type Chunk struct {
	Session  uint64 // zero on the client's leg, where the stream says it
	Epoch    uint64
	Sequence uint64
	Text     []byte // up to MaxChunk bytes, perhaps none
	Rich     *Rich  // nil for one token of plain content, which most chunks are
}

// Rich is what a chunk may have beside its text.
type Rich struct {
	Choice   uint32   // up to MaxChoice; 0 for the first or only one
	Channel  Channel  // that the text belongs to
	Tokens   uint32   // how many the chunk stands for, up to MaxChunkTokens
	TokenIDs []uint32 // if they are known; up to MaxChunkTokens
	Data     []byte   // whatever else the engine says of it, up to MaxChunkData bytes
}

// Channel says what a text is.
type Channel uint32

// Channels.
const (
	Content Channel = iota
	Reasoning
	Refusal
	ToolCall
	Channels // how many there are
)

// Where says to which text a chunk adds.
func (c *Chunk) Where() (choice uint32, channel Channel) {
	if c.Rich == nil {
		return 0, Content
	}
	return c.Rich.Choice, c.Rich.Channel
}

// Tokens is how many tokens the chunk stands for.
func (c *Chunk) Tokens() uint32 {
	if c.Rich == nil {
		return 1
	}
	return c.Rich.Tokens
}

// Size is what the chunk takes in memory, in bytes, about.
func (c *Chunk) Size() int {
	if c.Rich == nil {
		return len(c.Text)
	}
	return len(c.Text) + 4*len(c.Rich.TokenIDs) + len(c.Rich.Data)
}

// IsPlain reports whether it says nothing but that there is one token of content.
func (r *Rich) IsPlain() bool { return r == nil || r.saysNothing() }

func (r *Rich) saysNothing() bool {
	return r.Choice == 0 && r.Channel == Content && r.Tokens == 1 && len(r.TokenIDs) == 0 && len(r.Data) == 0
}

// Check returns what is beyond a limit, or nil.
func (r *Rich) Check() error {
	switch {
	case r == nil:
		return nil
	case r.Choice > MaxChoice:
		return fmt.Errorf("%w: choice %d, the last is %d", ErrTooLarge, r.Choice, MaxChoice)
	case r.Channel >= Channels:
		return fmt.Errorf("%w: channel %d, there are %d", ErrMalformed, r.Channel, Channels)
	case r.Tokens > MaxChunkTokens || len(r.TokenIDs) > MaxChunkTokens:
		return fmt.Errorf("%w: %d tokens with %d ids in a chunk, allowed are %d", ErrTooLarge, r.Tokens, len(r.TokenIDs), MaxChunkTokens)
	case len(r.Data) > MaxChunkData:
		return fmt.Errorf("%w: %d bytes of data in a chunk, allowed are %d", ErrTooLarge, len(r.Data), MaxChunkData)
	}
	return nil
}

// AppendChunk appends c as a frame of the client's leg.
func AppendChunk(b []byte, c Chunk) []byte {
	if c.Rich.IsPlain() {
		b = appendHeader(b, TypeToken, quicvarint.Len(c.Epoch)+quicvarint.Len(c.Sequence)+len(c.Text))
		b = quicvarint.Append(b, c.Epoch)
		b = quicvarint.Append(b, c.Sequence)
		return append(b, c.Text...)
	}
	b = appendHeader(b, TypeRich, quicvarint.Len(c.Epoch)+quicvarint.Len(c.Sequence)+richSize(&c))
	b = quicvarint.Append(b, c.Epoch)
	b = quicvarint.Append(b, c.Sequence)
	return appendRich(b, &c)
}

// AppendLinkChunk appends c as a frame of a link's token stream.
func AppendLinkChunk(b []byte, c Chunk) []byte {
	size := quicvarint.Len(c.Session) + quicvarint.Len(c.Epoch) + quicvarint.Len(c.Sequence)
	if c.Rich.IsPlain() {
		b = appendHeader(b, TypeLinkToken, size+len(c.Text))
	} else {
		b = appendHeader(b, TypeLinkRich, size+richSize(&c))
	}
	b = quicvarint.Append(b, c.Session)
	b = quicvarint.Append(b, c.Epoch)
	b = quicvarint.Append(b, c.Sequence)
	if c.Rich.IsPlain() {
		return append(b, c.Text...)
	}
	return appendRich(b, &c)
}

func richSize(c *Chunk) int {
	r := c.Rich
	size := 0
	for _, n := range []int{int(r.Choice), int(r.Channel), int(r.Tokens), len(r.TokenIDs), len(c.Text)} {
		size += quicvarint.Len(uint64(n))
	}
	for _, id := range r.TokenIDs {
		size += quicvarint.Len(uint64(id))
	}
	return size + len(c.Text) + len(r.Data)
}

func appendRich(b []byte, c *Chunk) []byte {
	r := c.Rich
	b = quicvarint.Append(b, uint64(r.Choice))
	b = quicvarint.Append(b, uint64(r.Channel))
	b = quicvarint.Append(b, uint64(r.Tokens))
	b = quicvarint.Append(b, uint64(len(r.TokenIDs)))
	for _, id := range r.TokenIDs {
		b = quicvarint.Append(b, uint64(id))
	}
	b = quicvarint.Append(b, uint64(len(c.Text)))
	b = append(b, c.Text...)
	return append(b, r.Data...)
}

// ParseChunk parses a frame of the client's leg that IsChunk.
func ParseChunk(f Frame) (c Chunk, err error) {
	body, err := numbers(f.Body, &c.Epoch, &c.Sequence)
	if err != nil {
		return Chunk{}, err
	}
	return c, c.parse(body, f.Type == TypeRich)
}

// ParseLinkChunk parses a frame of a link's token stream that IsChunk.
func ParseLinkChunk(f Frame) (c Chunk, err error) {
	body, err := numbers(f.Body, &c.Session, &c.Epoch, &c.Sequence)
	if err != nil {
		return Chunk{}, err
	}
	return c, c.parse(body, f.Type == TypeLinkRich)
}

// IsChunk reports whether a frame is one of a chunk.
func (f Frame) IsChunk() bool {
	return f.Type == TypeToken || f.Type == TypeLinkToken || f.Type == TypeRich || f.Type == TypeLinkRich
}

// numbers parses varints, and returns what follows.
func numbers(body []byte, all ...*uint64) ([]byte, error) {
	for _, number := range all {
		v, n, err := quicvarint.Parse(body)
		if err != nil {
			return nil, fmt.Errorf("%w: chunk: %w", ErrMalformed, err)
		}
		*number, body = v, body[n:]
	}
	return body, nil
}

// parse parses what follows the sequence.
func (c *Chunk) parse(body []byte, rich bool) error {
	if rich {
		var err error
		if c.Rich, body, err = parseRich(body); err != nil {
			return err
		}
		size := uint64(0)
		if body, err = numbers(body, &size); err != nil {
			return err
		}
		if size > uint64(len(body)) {
			return fmt.Errorf("%w: a chunk of %d bytes has %d", ErrMalformed, size, len(body))
		}
		c.Rich.Data, body = body[size:], body[:size:size]
	}
	if c.Text = body; len(body) > MaxChunk {
		return fmt.Errorf("%w: a chunk of %d bytes, allowed are %d", ErrTooLarge, len(body), MaxChunk)
	}
	if err := c.Rich.Check(); err != nil {
		return err
	}
	if c.Rich.IsPlain() {
		c.Rich = nil
	}
	return nil
}

// parseRich parses what comes before the text.
func parseRich(body []byte) (*Rich, []byte, error) {
	var choice, channel, tokens, ids uint64
	body, err := numbers(body, &choice, &channel, &tokens, &ids)
	if err != nil {
		return nil, nil, err
	}
	if max(choice, channel, tokens, ids) > MaxChunkTokens { // the largest of all limits: it fits a uint32
		return nil, nil, fmt.Errorf("%w: choice %d, channel %d, %d tokens, %d ids in a chunk", ErrTooLarge, choice, channel, tokens, ids)
	}
	r := &Rich{Choice: uint32(choice), Channel: Channel(channel), Tokens: uint32(tokens)}
	if ids > 0 {
		r.TokenIDs = make([]uint32, ids)
	}
	for i := range r.TokenIDs {
		id := uint64(0)
		if body, err = numbers(body, &id); err != nil {
			return nil, nil, err
		}
		if id > 1<<32-1 {
			return nil, nil, fmt.Errorf("%w: token id %d", ErrMalformed, id)
		}
		r.TokenIDs[i] = uint32(id)
	}
	return r, body, nil
}
