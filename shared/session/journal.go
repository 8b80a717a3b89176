package session

import (
	"errors"
	"fmt"
)

// Errors of a Journal.
var (
	ErrSequence = errors.New("sequence is not the next one")
	ErrFull     = errors.New("journal is full")
	ErrPrefix   = errors.New("malformed prefix")
)

// Journal is the prefix of a stream: its tokens in order, their bytes, and the digest over them. It only
// grows, up to its bound. It is not safe for concurrent use.
type Journal struct {
	text    []byte
	lengths []uint32
	digest  Rolling
	limit   int // bytes of text
}

// NewJournal returns an empty journal that takes limit bytes of text.
func NewJournal(limit int) *Journal { return &Journal{limit: limit} }

// Append adds the token with the given sequence, which must be Len()+1. It copies text.
func (j *Journal) Append(sequence uint64, text []byte) error {
	if sequence != j.Len()+1 {
		return fmt.Errorf("%w: got %d after %d", ErrSequence, sequence, j.Len())
	}
	if len(j.text)+len(text) > j.limit {
		return fmt.Errorf("%w: %d bytes", ErrFull, j.limit)
	}
	j.text = append(j.text, text...)
	j.lengths = append(j.lengths, uint32(len(text)))
	j.digest.Add(text)
	return nil
}

// Len returns the number of tokens, which is also the sequence of the last one.
func (j *Journal) Len() uint64 { return uint64(len(j.lengths)) }

// Size returns the bytes of text.
func (j *Journal) Size() int { return len(j.text) }

// Digest returns the digest over all tokens.
func (j *Journal) Digest() Digest { return j.digest.Digest() }

// Prefix returns the tokens' bytes, one after the other, and the length of each. Both stay as they are while
// the journal grows; the caller must not change them.
func (j *Journal) Prefix() (text []byte, lengths []uint32) {
	return j.text[:len(j.text):len(j.text)], j.lengths[:len(j.lengths):len(j.lengths)]
}

// Since returns the tokens after the given sequence, as Prefix does. Beyond the last token there are none.
func (j *Journal) Since(sequence uint64) (text []byte, lengths []uint32) {
	text, lengths = j.Prefix()
	lengths = lengths[min(sequence, j.Len()):]
	size := 0
	for _, n := range lengths {
		size += int(n)
	}
	return text[len(text)-size:], lengths
}

// Split cuts a prefix as it came over the wire into its tokens, which alias text, and returns their rolling
// digest. No token may be longer than maxToken bytes.
func Split(text []byte, lengths []uint32, maxToken int) ([][]byte, *Rolling, error) {
	d := &Rolling{}
	tokens := make([][]byte, len(lengths))
	for i, n := range lengths {
		if int64(n) > int64(maxToken) || int64(n) > int64(len(text)) {
			return nil, nil, fmt.Errorf("%w: token %d has %d bytes, %d are left", ErrPrefix, i+1, n, len(text))
		}
		tokens[i], text = text[:n:n], text[n:]
		d.Add(tokens[i])
	}
	if len(text) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes belong to no token", ErrPrefix, len(text))
	}
	return tokens, d, nil
}
