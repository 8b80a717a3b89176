// Package mgmt serves the MGMT port: HTTP over TCP for people and probes, and over QUIC streams whose first frame says
// whether it asks for health or belongs to the role.
package mgmt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// firstFrameTimeout is how long a peer may take to say what it wants.
const firstFrameTimeout = 5 * time.Second

// Server answers on the QUIC side of a MGMT port. It is safe for concurrent use.
type Server struct {
	// Health answers a HealthRequest.
	Health func() *wirepb.HealthReply
	// Stream handles a stream that begins with anything else; where Stream is nil that is refused. When it
	// returns a *wire.Error the peer gets that, then the stream is closed; with any other error it is reset.
	// ctx ends with the connection or with Serve.
	Stream func(ctx context.Context, s Stream, first wire.Message) error
}

// Stream is one bidirectional stream of a MGMT connection, its first frame read.
type Stream struct {
	*quic.Stream

	Conn   *quic.Conn
	Reader *wire.Reader
}

// Serve answers until ctx ends; then it closes all connections, telling the peers that this is a shutdown,
// and l. All its goroutines have returned when it does.
func (f *Server) Serve(ctx context.Context, l *quicnet.Listener) error {
	var conns sync.WaitGroup
	serving, stop := context.WithCancel(ctx)
	err := f.accept(serving, l, &conns)
	stop()
	conns.Wait()
	closed := l.Close()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("accepting on %s: %w", l.Addr(), err), closed)
}

func (f *Server) accept(ctx context.Context, l *quicnet.Listener, conns *sync.WaitGroup) error {
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		conns.Go(func() { f.serveConn(ctx, conn) })
	}
}

func (f *Server) serveConn(ctx context.Context, conn *quic.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(conn.Context(), cancel)()
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) // always nil
	})()
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		streams.Go(func() { f.serveStream(ctx, conn, stream) })
	}
}

func (f *Server) serveStream(ctx context.Context, conn *quic.Conn, stream *quic.Stream) {
	s := Stream{Stream: stream, Conn: conn, Reader: wire.NewReaderSize(stream, wire.MaxControl, wire.SmallBuffer)}
	err := f.handle(ctx, s)
	stream.CancelRead(wire.StreamOk)
	var refusal *wire.Error
	if errors.As(err, &refusal) {
		_, err = stream.Write(wire.Append(nil, refusal.Proto()))
	}
	if err != nil {
		stream.CancelWrite(wire.StreamRefused)
		return
	}
	_ = stream.Close() // fails only where the stream is gone already
}

func (f *Server) handle(ctx context.Context, s Stream) error {
	if err := s.SetReadDeadline(time.Now().Add(firstFrameTimeout)); err != nil {
		return err
	}
	frame, err := s.Reader.Next()
	if err != nil {
		return err
	}
	first, err := wire.Decode(frame)
	if err != nil {
		return wire.Errorf(wire.CodeProtocol, "%v", err)
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	switch {
	case frame.Type == wire.TypeHealthRequest:
		_, err = s.Write(wire.Append(nil, f.Health()))
		return err
	case f.Stream != nil:
		return f.Stream(ctx, s, first)
	default:
		return wire.Errorf(wire.CodeProtocol, "%s has no place here", frame.Type)
	}
}
