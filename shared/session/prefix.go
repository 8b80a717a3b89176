package session

import (
	"errors"
	"fmt"
)

// ErrPrefix says that the lengths of a prefix are not those of its text.
var ErrPrefix = errors.New("malformed prefix")

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
