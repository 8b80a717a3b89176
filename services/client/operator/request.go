package operator

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// answerTimeout is how long a director may take to answer what it can answer at once, and to say that a time
	// which it was given is over. One that is not there at all is noticed earlier, by QUIC.
	answerTimeout = 15 * time.Second
	// answerLimit is what one frame of an answer may have, in bytes: a status lists every stream.
	answerLimit = 64 << 20
)

// within limits the wait for an answer.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, wire.Errorf(wire.CodeLost,
		"the director has not answered for %v; ask again, and look at its log if it stays so", limit))
}

// ask sends one request and returns its result. progress gets what comes before that; it is called by this
// goroutine. When ctx ends the request is given up, and the director told.
func (c *Client) ask(
	ctx context.Context, request *wirepb.Operate, progress func(*wirepb.Operated),
) (*wirepb.Operated, error) {
	stream, err := c.quic.OpenStreamSync(ctx)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer stream.CancelRead(wire.StreamOk) // nothing counts after the result
	defer context.AfterFunc(ctx, func() {
		stream.CancelRead(wire.StreamCancel)
		stream.CancelWrite(wire.StreamCancel)
	})()
	// Where the director takes no more of it, or the connection is lost, reading tells why.
	_, _ = stream.Write(wire.Append(nil, request))
	_ = stream.Close()
	result, err := receive(ctx, stream, progress)
	if err != nil {
		return nil, duringRequest(ctx, err)
	}
	return result, nil
}

// receive reads an answer up to its result.
func receive(
	ctx context.Context, stream *quic.Stream, progress func(*wirepb.Operated),
) (*wirepb.Operated, error) {
	frames := wire.NewReaderSize(stream, answerLimit, wire.SmallBuffer)
	for {
		operated, err := wire.ReadMessage[*wirepb.Operated](frames)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, missing("result")
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err() // whatever the buffer still has
		case operated.GetResult():
			return operated, nil
		default:
			progress(operated)
		}
	}
}

// missing is the error for an answer without the part that was asked for.
func missing(part string) error {
	return wire.Errorf(wire.CodeProtocol, "the director's answer has no %s", part)
}

// duringRequest is explain for a request that may have had an effect.
func duringRequest(ctx context.Context, err error) error {
	err = explain(ctx, err)
	var known *wire.Error
	if ctx.Err() == nil && errors.As(err, &known) && known.Code == wire.CodeLost {
		return fault.New(wire.CodeLost, err,
			"%s; what was asked for may have been done in part: see the status once the director is there again", known.Message)
	}
	return err
}

// unheard is for requests whose progress nobody wants.
func unheard(*wirepb.Operated) {}
