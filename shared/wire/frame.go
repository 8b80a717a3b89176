package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Errors of a Reader. All mean that the peer broke the protocol.
var (
	ErrTooLarge    = errors.New("frame exceeds the limit")
	ErrMalformed   = errors.New("malformed frame")
	ErrUnknownType = errors.New("unknown frame type")
)

// Frame is one frame as read: its type and its body, not decoded yet.
type Frame struct {
	Type Type
	Body []byte
}

// Reader reads frames from a stream. It is not safe for concurrent use.
type Reader struct {
	r     *bufio.Reader
	limit int
	body  []byte
}

// SmallBuffer is a buffer for NewReaderSize: enough for what most peers say.
const SmallBuffer = 4 << 10

// NewReaderSize is NewReader with a buffer of that many bytes. It is for streams that anybody may open, and for
// many that say little: what a frame needs beyond the buffer is allocated as it arrives.
func NewReaderSize(r io.Reader, limit, buffer int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, buffer), limit: limit}
}

// readBuffer holds what a peer sends in one decode step of a few hundred sessions.
const readBuffer = 64 << 10

// NewReader returns a Reader that refuses frames of more than limit bytes (type and body).
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, min(readBuffer, max(limit, 512))), limit: limit}
}

// Buffered returns how many bytes have arrived and wait to be read without touching the stream.
func (r *Reader) Buffered() int { return r.r.Buffered() }

// Ready reports whether the next frame has arrived as a whole, so that Next will not wait.
func (r *Reader) Ready() bool {
	buffered, _ := r.r.Peek(r.r.Buffered()) // what is buffered can be had
	length, n, err := quicvarint.Parse(buffered)
	return err == nil && uint64(len(buffered)-n) >= length
}

// Next returns the next frame; its body is valid until the following call. At the clean end of the
// stream it returns io.EOF; an end within a frame is io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	if _, err := r.r.Peek(1); err != nil {
		return Frame{}, err
	}
	length, err := quicvarint.Read(r.r)
	if err != nil {
		return Frame{}, midFrame(err)
	}
	if length > uint64(r.limit) {
		return Frame{}, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, length, r.limit)
	}
	raw, err := r.take(int(length))
	if err != nil {
		return Frame{}, err
	}
	t, n, err := quicvarint.Parse(raw)
	if err != nil {
		return Frame{}, fmt.Errorf("%w: frame of %d bytes without a type", ErrMalformed, length)
	}
	return Frame{Type: Type(t), Body: raw[n:]}, nil
}

// ParseFrame returns the first frame of b, and its size in bytes. It is for what this process has written itself: of
// anything else it returns a Frame of type 0 and the size of b.
func ParseFrame(b []byte) (f Frame, size int) {
	length, n, err := quicvarint.Parse(b)
	if err != nil || length > uint64(len(b)-n) {
		return Frame{}, len(b)
	}
	size = n + int(length)
	t, m, err := quicvarint.Parse(b[n:size])
	if err != nil {
		return Frame{}, len(b)
	}
	return Frame{Type: Type(t), Body: b[n+m : size]}, size
}

// take returns the next n bytes, without copying where they fit the buffer.
func (r *Reader) take(n int) ([]byte, error) {
	if n <= r.r.Size() {
		raw, err := r.r.Peek(n)
		if err != nil {
			return nil, midFrame(err)
		}
		_, err = r.r.Discard(n)
		return raw, err
	}
	// Double as bytes arrive: a peer that announces much and sends little costs little.
	r.body = r.body[:0]
	for len(r.body) < n {
		chunk := min(n-len(r.body), max(len(r.body), r.r.Size()))
		r.body = append(r.body, make([]byte, chunk)...)
		if _, err := io.ReadFull(r.r, r.body[len(r.body)-chunk:]); err != nil {
			return nil, midFrame(err)
		}
	}
	raw := r.body
	if n > 16*readBuffer {
		r.body = nil // do not keep the largest frame ever seen
	}
	return raw, nil
}

func midFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendHeader appends the length and type of a frame whose body has the given size.
func appendHeader(b []byte, t Type, body int) []byte {
	b = quicvarint.Append(b, uint64(quicvarint.Len(uint64(t))+body))
	return quicvarint.Append(b, uint64(t))
}

// Append appends m as a frame. The type follows from m.
func Append(b []byte, m Message) []byte {
	t, ok := typeOf(m)
	if !ok {
		// A message without a type is a mistake in this package's table, not a run-time condition.
		panic(fmt.Sprintf("wire: %T has no frame type", m)) //nolint:forbidigo // unreachable unless the table is wrong; a test walks it
	}
	b = appendHeader(b, t, proto.Size(m))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		panic(fmt.Sprintf("wire: marshalling %T: %v", m, err)) //nolint:forbidigo // proto3 scalars fail only on invalid UTF-8, which Text prevents
	}
	return b
}

// Decode returns the message in f, its texts made printable. Tokens are not messages; see ParseChunk and ParseLinkChunk.
func Decode(f Frame) (Message, error) {
	m, err := unmarshal(f, proto.UnmarshalOptions{})
	if err == nil && worded[f.Type] {
		makePrintable(m.ProtoReflect())
	}
	return m, err
}

func unmarshal(f Frame, options proto.UnmarshalOptions) (Message, error) {
	m := newMessage(f.Type)
	if m == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownType, f.Type)
	}
	if err := options.Unmarshal(f.Body, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, f.Type, err)
	}
	if err := checkNumbers(m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, f.Type, err)
	}
	return m, nil
}

// maxSurplus is how much larger a request may be than what it says, in bytes: room for a few fields of newer peers.
const maxSurplus = 1 << 10

// ReadRequest reads one frame and decodes it as M, from the end that speaks first. Unlike ReadMessage it keeps nothing that it
// does not know, refuses much of that, and takes no Error: who asks has none to report.
func ReadRequest[M Message](r *Reader) (M, error) {
	var none M
	f, err := r.Next()
	if err != nil {
		return none, err
	}
	m, err := unmarshal(f, proto.UnmarshalOptions{DiscardUnknown: true})
	if err != nil {
		return none, err
	}
	request, ok := m.(M)
	if !ok {
		return none, fmt.Errorf("%w: got %s", ErrUnexpected, f.Type)
	}
	if surplus := len(f.Body) - proto.Size(m); surplus > maxSurplus {
		return none, fmt.Errorf("%w: %s: %d bytes of nothing that is known, allowed are %d", ErrMalformed, f.Type, surplus, maxSurplus)
	}
	makePrintable(m.ProtoReflect())
	return request, nil
}

// BadFrame reports whether err is for a frame that the protocol does not allow.
func BadFrame(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnknownType) || errors.Is(err, ErrUnexpected)
}

// checkNumbers refuses numbers that a worker could not put into a token's header.
func checkNumbers(m Message) error {
	a, ok := m.(*wirepb.Attach)
	if ok && max(a.GetSession(), a.GetEpoch()) > quicvarint.Max {
		return fmt.Errorf("session %d, epoch %d: allowed are %d", a.GetSession(), a.GetEpoch(), uint64(quicvarint.Max))
	}
	return nil
}

// ReadMessage reads one frame and decodes it as M. A peer's Error is returned as a *wire.Error.
func ReadMessage[M Message](r *Reader) (M, error) {
	var none M
	f, err := r.Next()
	if err != nil {
		return none, err
	}
	m, err := Decode(f)
	if err != nil {
		return none, err
	}
	switch m := m.(type) {
	case M:
		return m, nil
	case *ErrorMessage:
		return none, FromMessage(m)
	default:
		return none, fmt.Errorf("%w: got %s", ErrUnexpected, f.Type)
	}
}

// ErrUnexpected means that a frame came where the protocol has no place for it.
var ErrUnexpected = errors.New("unexpected frame")
