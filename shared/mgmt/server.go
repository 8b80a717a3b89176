// Package mgmt serves the MGMT port: HTTP over TCP for people and probes, and over QUIC streams whose first frame says
// whether it asks for health or belongs to the role.
package mgmt

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// firstFrameTimeout is how long a peer may take to say what it wants.
const firstFrameTimeout = 5 * time.Second

// Listen binds the QUIC side of a MGMT port. All roles but clients may connect; what each of them may ask for is the
// owner's to check. A connection from which nothing comes for the given silence is lost. Peers that are turned away in
// the handshake are logged.
func Listen(
	nw quicnet.Network, addr string, source identity.Source, silence time.Duration, log *zap.Logger,
) (*quicnet.Listener, error) {
	tlsConf := identity.ServerTLS(source, []string{wire.ALPNMgmt}, map[string][]identity.Role{
		wire.ALPNMgmt: {identity.Director, identity.Worker, identity.Operator},
	})
	conf := quicnet.ReportRefusals(quicnet.MgmtConfig(silence), func(peer netip.AddrPort, reason string) {
		log.Warn("refused on the MGMT port", zap.Stringer("address", peer), zap.String("reason", reason),
			telemetry.From(peer.String()))
	})
	return quicnet.Listen(nw, addr, tlsConf, conf)
}

// Server answers on the QUIC side of a MGMT port. Its fields are set before Serve, and stay. Serve owns the goroutines:
// one for each connection, and one for each stream.
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
func (srv *Server) Serve(ctx context.Context, l *quicnet.Listener) error {
	var conns sync.WaitGroup
	serving, stop := context.WithCancel(ctx)
	err := srv.accept(serving, l, &conns)
	stop()
	conns.Wait()
	closed := l.Close()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("accepting on %s: %w", l.Addr(), err), closed)
}

// accept serves connections until ctx ends or the listener fails.
func (srv *Server) accept(ctx context.Context, l *quicnet.Listener, conns *sync.WaitGroup) error {
	var crowd crowd
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		leave, ok := crowd.enter(conn.RemoteAddr())
		if !ok {
			_ = conn.CloseWithError(wire.QUICRefused, string(wire.CodeLimit)+": too many connections, all in all or from this address")
			continue
		}
		conns.Go(func() {
			defer leave()
			srv.serveConn(ctx, conn)
		})
	}
}

// serveConn serves the streams of one connection, and returns when all of them have ended.
func (srv *Server) serveConn(ctx context.Context, conn *quic.Conn) {
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
		streams.Go(func() { srv.serveStream(ctx, conn, stream) })
	}
}

// serveStream handles one stream and ends it: in order, with a refusal as the last frame, or by a reset.
func (srv *Server) serveStream(ctx context.Context, conn *quic.Conn, stream *quic.Stream) {
	s := Stream{Stream: stream, Conn: conn, Reader: wire.NewReaderSize(stream, wire.MaxControl, wire.SmallBuffer)}
	err := srv.handle(ctx, s)
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

// handle reads the first frame, which has to come in time, and answers it, or leaves that to Stream.
func (srv *Server) handle(ctx context.Context, s Stream) error {
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
		_, err = s.Write(wire.Append(nil, srv.Health()))
		return err
	case srv.Stream != nil:
		return srv.Stream(ctx, s, first)
	default:
		return wire.Errorf(wire.CodeProtocol, "%s has no place here", frame.Type)
	}
}
