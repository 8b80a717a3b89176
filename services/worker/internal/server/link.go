package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	greetTimeout = 5 * time.Second
	maxProgress  = time.Minute
)

// Why a link ends.
var (
	errShutdown = errors.New("shutting down")
	errTether   = errors.New("the director's tether ended")
	errDirector = errors.New("the director closed the link")
	errReplaced = errors.New("the director has a newer link")
)

// link is one director's connection. The goroutine of serveLink owns it and waits for all others.
type link struct {
	server  *Server
	conn    *quic.Conn
	log     *zap.Logger
	end     context.CancelCauseFunc // ends the link
	running sync.WaitGroup          // its writers, its progress and its attempts

	// Set while greeting, constant afterwards.
	director string
	instance string // of the director's process
	version  uint32 // of the protocol that the director speaks on this link
	tether   string
	every    time.Duration // of Progress
	control  *wire.Outbox
	tokens   []*wire.Outbox // a session's tokens go to the one at session % len
	written  chan struct{}  // closed when nothing is written to token streams any more

	rhythm   chan time.Duration // for report: Progress this often from now on
	received atomic.Uint64      // bytes of the control stream, for Progress

	tied bool // it has its tether; guarded by Server.mu

	mu       sync.Mutex
	attempts map[uint64]*attempt // by session
}

// serveLink serves one connection until it ends or ctx does.
func (s *Server) serveLink(ctx context.Context, conn *quic.Conn) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	l := &link{
		server: s, conn: conn, end: end, log: s.deps.Log,
		control: wire.NewOutbox(wire.MaxBacklog, end), written: make(chan struct{}), rhythm: make(chan time.Duration, 1), attempts: make(map[uint64]*attempt),
	}
	defer context.AfterFunc(conn.Context(), func() { end(context.Cause(conn.Context())) })()

	closed := make(chan struct{})
	context.AfterFunc(ctx, func() { // unblocks all reads and writes
		defer close(closed)
		code, reason := closing(context.Cause(ctx))
		_ = conn.CloseWithError(code, reason) // always nil
	})
	end(l.run(ctx))
	<-closed
}

func (l *link) run(ctx context.Context) error {
	s, err := l.greet(ctx)
	if err != nil {
		l.log.Warn("link refused", zap.Stringer("address", l.conn.RemoteAddr()), zap.Error(err))
		return err
	}
	l.log.Info("link opened")
	err = l.serve(ctx, s)
	l.end(err)
	l.drop()
	l.server.leave(l)
	l.running.Wait()
	l.log.Info("link closed", zap.Error(context.Cause(ctx)))
	return err
}

// streams are a link's, once it is greeted.
type streams struct {
	control *quic.Stream
	frames  *wire.Reader // of control
	tokens  []*quic.SendStream
}

// greet reads the director's hello and opens the streams that it asks for.
func (l *link) greet(ctx context.Context) (streams, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTimeout, errors.New("no hello in time"))
	defer cancel()
	control, err := l.conn.AcceptStream(ctx)
	if err != nil {
		return streams{}, fmt.Errorf("waiting for the control stream: %w", err)
	}
	if err := control.SetReadDeadline(time.Now().Add(greetTimeout)); err != nil {
		return streams{}, err
	}
	s := streams{control: control, frames: wire.NewReader(counter{control, &l.received}, wire.MaxAttach)}
	hello, err := wire.ReadMessage[*wirepb.LinkHello](s.frames)
	if err != nil {
		return streams{}, fmt.Errorf("reading the hello: %w", err)
	}
	if refusal := l.accept(hello); refusal != nil {
		l.turnAway(ctx, control, refusal)
		return streams{}, refusal
	}
	for range l.tokens {
		tokens, err := l.conn.OpenUniStreamSync(ctx)
		if err != nil {
			return streams{}, fmt.Errorf("opening a token stream: %w", err)
		}
		s.tokens = append(s.tokens, tokens)
	}
	return s, control.SetReadDeadline(time.Time{})
}

// accept takes over what the hello says.
func (l *link) accept(hello *wirepb.LinkHello) *wire.Error {
	l.every = time.Duration(hello.GetProgressIntervalMs()) * time.Millisecond
	n := hello.GetTokenStreams()
	switch {
	case hello.GetVersion() < wire.OldestPeerVersion || hello.GetVersion() > l.server.cfg.Version:
		return wire.Errorf(wire.CodeVersion, "director speaks version %d of the link protocol, worker %s %d to %d",
			hello.GetVersion(), l.server.cfg.Label, wire.OldestPeerVersion, l.server.cfg.Version)
	case n < 1 || n > quicnet.MaxTokenStreams:
		return wire.Errorf(wire.CodeProtocol, "%d token streams, allowed are 1 to %d", n, quicnet.MaxTokenStreams)
	case l.every <= 0 || l.every > maxProgress:
		return wire.Errorf(wire.CodeProtocol, "progress every %v, allowed is up to %v", l.every, maxProgress)
	case hello.GetVersion() >= 2 && hello.GetDirectorInstance() == "":
		return wire.Errorf(wire.CodeProtocol, "no director instance: from version 2 on tokens and snapshots belong to one")
	}
	l.version = hello.GetVersion()
	l.tether, l.director, l.instance = hello.GetTether(), hello.GetDirectorId(), hello.GetDirectorInstance()
	l.log = l.log.With(zap.String("director", l.director))
	if l.version >= 2 {
		if err := l.server.deps.States.verifier.SetKeys(l.instance, hello.GetTokenKeys()); err != nil {
			return wire.AsError(err, wire.CodeProtocol)
		}
	}
	l.tokens = make([]*wire.Outbox, n)
	for i := range l.tokens {
		l.tokens[i] = wire.NewOutbox(wire.MaxBacklog, l.end)
	}
	return nil
}

// turnAway tells the director why, and gives it a moment to read that.
func (l *link) turnAway(ctx context.Context, stream *quic.Stream, refusal *wire.Error) {
	if _, err := stream.Write(wire.Append(nil, refusal.Proto())); err != nil {
		return
	}
	_ = stream.Close() // fails only where the connection has
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	<-ctx.Done()
}

// serve runs the link's writers and reads its control stream.
func (l *link) serve(ctx context.Context, s streams) error {
	if err := l.server.deps.Gate.Wait(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil { // a link that is dead must not end the newer one
		return context.Cause(ctx)
	}
	var writers sync.WaitGroup
	for i, out := range l.tokens {
		writers.Go(func() {
			if err := out.Run(ctx, s.tokens[i]); err != nil {
				l.end(err)
			}
		})
	}
	l.running.Go(func() {
		writers.Wait()
		close(l.written)
	})
	l.server.join(l)
	l.running.Go(func() {
		if err := l.control.Run(ctx, s.control); err != nil {
			l.end(err)
			return
		}
		_ = s.control.Close() // flushed for good: the director may close; fails only where the link has
	})
	every := l.every // which read may change
	l.running.Go(func() { l.report(ctx, every) })
	return l.read(ctx, s.frames)
}

// flush lets everything that was put go out, and nothing after it. The director learns last that this is the
// end, so that it has read everything else.
// It returns when the director has closed the link, or when ctx ends.
func (l *link) flush(ctx context.Context) {
	for _, out := range l.tokens {
		out.Close()
	}
	select {
	case <-l.written:
	case <-ctx.Done():
		return
	}
	l.control.Close()
	select {
	case <-l.conn.Context().Done():
	case <-ctx.Done():
	}
}

// counter counts what is read.
type counter struct {
	io.Reader
	n *atomic.Uint64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(uint64(n))
	return n, err
}

// report says at the agreed interval that the worker is alive.
func (l *link) report(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for count := uint64(1); ; count++ {
		select {
		case <-ticker.C:
		case every := <-l.rhythm:
			ticker.Reset(every)
		case <-ctx.Done():
			return
		}
		if l.server.deps.Gate.Wait(ctx) != nil {
			return
		}
		progress := &wirepb.Progress{Count: count, Received: l.received.Load()}
		for _, out := range l.tokens {
			progress.Sent += out.Total()
		}
		if err := l.conn.SendDatagram(wire.Append(nil, progress)); err != nil {
			l.end(err)
			return
		}
	}
}

// drop stops all attempts.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for session, a := range l.attempts {
		a.stop()
		delete(l.attempts, session)
	}
}

func (l *link) list() []Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	sessions := make([]Session, 0, len(l.attempts))
	for _, a := range l.attempts {
		sessions = append(sessions, a.describe())
	}
	return sessions
}

// closing is how the director is told why the link ends.
func closing(cause error) (quic.ApplicationErrorCode, string) {
	var refusal *wire.Error
	switch {
	case errors.Is(cause, errShutdown):
		return wire.QUICShutdown, string(wire.CodeShutdown)
	case errors.Is(cause, errTether):
		return wire.QUICLost, string(wire.CodeLost) + ": " + errTether.Error()
	case errors.Is(cause, errReplaced):
		return wire.QUICLost, string(wire.CodeLost) + ": " + errReplaced.Error()
	case errors.Is(cause, wire.ErrBacklog):
		return wire.QUICLost, wire.Text(string(wire.CodeLost) + ": " + cause.Error())
	case errors.As(cause, &refusal):
		if refusal.Code == wire.CodeProtocol {
			return wire.QUICProtocol, refusal.Error()
		}
		return wire.QUICRefused, refusal.Error()
	case errors.Is(cause, errDirector), cause == nil:
		return wire.QUICOk, ""
	default:
		return wire.QUICProtocol, wire.Text(string(wire.CodeProtocol) + ": " + cause.Error())
	}
}
