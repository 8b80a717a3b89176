package native

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire"
)

// quicStream is a client's stream, as far as a leg uses it. *quic.Stream is one.
type quicStream interface {
	TryWriteAll(p []byte) error
	Write(p []byte) (int, error)
	CancelWrite(code quic.StreamErrorCode)
	Close() error
	Context() context.Context
}

const (
	// batchMost is how much a leg hands to the connection at once, in bytes.
	batchMost = 64 << 10
	// pieceMost is the same while the client's window is full: each piece that is taken shows that the client reads.
	pieceMost = 4 << 10
)

// leg carries one stream to its client: it reads the stream's log at a cursor of its own. As long as the client's
// connection takes everything at once that costs no goroutine; one that is blocked writes what remains as the client's
// window opens, and what has not been written is in the log only.
type leg struct {
	stream quicStream
	log    *stream.Log

	mu      sync.Mutex
	cursor  stream.Cursor // what the connection has taken
	writing bool          // a goroutine writes
	closed  bool          // nothing is written any more
	took    time.Duration // stall-proof time at which the client last took something of what is written

	writer sync.WaitGroup // at most one goroutine, see writeSlowly
	clock  *clock.StallProof
	tell   func(event any)
	stop   func() bool // of waiting for the client to cancel

	release func() // called when the leg is closed
}

var _ session.Leg = (*leg)(nil)

// newLeg returns the leg over a client's stream, which goes on at a cursor.
func newLeg(s quicStream, log *stream.Log, at stream.Cursor, clock *clock.StallProof, tell func(event any)) *leg {
	g := &leg{stream: s, log: log, cursor: at, clock: clock, tell: tell, release: func() {}}
	g.stop = context.AfterFunc(s.Context(), func() {
		err := context.Cause(s.Context())
		tell(session.ClientLeft{Cancelled: !broken(err), Err: err})
	})
	return g
}

// broken reports whether that is how a client's connection ends that may come back: anything but the client's word that it
// wants no more.
func broken(err error) bool {
	var stream *quic.StreamError
	var closed *quic.ApplicationError
	switch {
	case errors.As(err, &stream), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &closed):
		return !closed.Remote || closed.ErrorCode == wire.QUICLost
	}
	return true
}

// Push hands what is new in the log to the connection, if that takes it at once; otherwise a goroutine does, as the
// client's window opens.
func (g *leg) Push() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.writing && !g.closed {
		frames, next := g.log.Read(g.cursor, batchMost)
		if len(frames) == 0 {
			return
		}
		switch err := g.stream.TryWriteAll(frames); {
		case err == nil:
			g.cursor = next
			g.taken()
		case errors.Is(err, quic.ErrWouldBlock):
			g.writing, g.took = true, g.clock.Now()
			g.writer.Go(g.writeSlowly)
		default:
			g.fail(err)
		}
	}
}

// writeSlowly writes until nothing is left.
func (g *leg) writeSlowly() {
	for {
		g.mu.Lock()
		piece, next := g.log.Read(g.cursor, pieceMost)
		if g.closed || len(piece) == 0 {
			g.writing = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()

		_, err := g.stream.Write(piece)

		g.mu.Lock()
		if err != nil {
			g.fail(err)
		} else {
			g.cursor, g.took = next, g.clock.Now()
			g.tell(session.ClientRead{})
			g.taken()
		}
		g.mu.Unlock()
	}
}

// taken takes note that the connection has everything before the cursor. g.mu is held.
func (g *leg) taken() {
	if g.log.Taken(g.cursor) {
		g.tell(session.Delivered{})
	}
}

// fail takes note that nothing reaches the client any more. g.mu is held.
func (g *leg) fail(err error) {
	if !g.closed {
		g.closed = true
		g.tell(session.ClientLeft{Err: err})
	}
}

// Stalled returns for how long the client has taken nothing of what waits for it.
func (g *leg) Stalled() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.writing {
		return 0
	}
	return g.clock.Since(g.took)
}

// Close ends the leg: with the end of the stream if err is nil, else by resetting it, if there is something that the
// client has not taken.
func (g *leg) Close(err error) {
	g.stop()
	defer g.release()
	g.mu.Lock()
	g.closed = true
	writing := g.writing
	g.mu.Unlock()
	var stopped *quic.StreamError
	switch {
	case errors.As(context.Cause(g.stream.Context()), &stopped):
		g.stream.CancelWrite(stopped.ErrorCode) // before that QUIC does not count the stream as over
	case errors.Is(err, session.ErrClientStalled):
		g.stream.CancelWrite(wire.StreamStalled)
	case errors.Is(err, session.ErrTaken):
		g.stream.CancelWrite(wire.StreamTaken)
	case err == nil:
		_ = g.stream.Close() // an error here means that the client is gone
	case writing:
		g.stream.CancelWrite(wire.StreamCancel)
	}
	g.writer.Wait()
}
