package wire

import (
	"fmt"

	"github.com/quic-go/quic-go/quicvarint"
)

// Token is one token of a stream. Text is up to MaxToken bytes; it aliases the frame that it was parsed from.
type Token struct {
	Session  uint64 // zero on the client's leg, where the stream says it
	Epoch    uint64
	Sequence uint64
	Text     []byte
}

// AppendToken appends t as a frame of the client's leg.
func AppendToken(b []byte, t Token) []byte {
	b = appendHeader(b, TypeToken, quicvarint.Len(t.Epoch)+quicvarint.Len(t.Sequence)+len(t.Text))
	b = quicvarint.Append(b, t.Epoch)
	b = quicvarint.Append(b, t.Sequence)
	return append(b, t.Text...)
}

// AppendLinkToken appends t as a frame of a link's token stream.
func AppendLinkToken(b []byte, t Token) []byte {
	size := quicvarint.Len(t.Session) + quicvarint.Len(t.Epoch) + quicvarint.Len(t.Sequence) + len(t.Text)
	b = appendHeader(b, TypeLinkToken, size)
	b = quicvarint.Append(b, t.Session)
	b = quicvarint.Append(b, t.Epoch)
	b = quicvarint.Append(b, t.Sequence)
	return append(b, t.Text...)
}

// ParseToken parses the body of a TypeToken frame.
func ParseToken(body []byte) (Token, error) {
	var t Token
	err := parse(body, &t.Text, &t.Epoch, &t.Sequence)
	return t, err
}

// ParseLinkToken parses the body of a TypeLinkToken frame.
func ParseLinkToken(body []byte) (Token, error) {
	var t Token
	err := parse(body, &t.Text, &t.Session, &t.Epoch, &t.Sequence)
	return t, err
}

func parse(body []byte, text *[]byte, numbers ...*uint64) error {
	for _, number := range numbers {
		v, n, err := quicvarint.Parse(body)
		if err != nil {
			return fmt.Errorf("%w: token header: %w", ErrMalformed, err)
		}
		*number, body = v, body[n:]
	}
	if len(body) > MaxToken {
		return fmt.Errorf("%w: token of %d bytes, allowed are %d", ErrTooLarge, len(body), MaxToken)
	}
	*text = body
	return nil
}
