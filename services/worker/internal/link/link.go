package link

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

	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/state"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	greetTimeout = 5 * time.Second // from the connection to the last stream that the hello asks for
	maxProgress  = time.Minute     // the longest interval that a director may ask for
	maxLinks     = 256             // one for each director's process
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
	conn    Conn
	log     *zap.Logger
	end     context.CancelCauseFunc // ends the link
	running sync.WaitGroup          // its writers, its progress and its sessions

	// Set while greeting, constant afterwards.
	director string
	instance string // of the director's process
	tether   string
	every    time.Duration // of Progress
	control  *queue
	tokens   []*queue
	written  chan struct{} // closed when nothing is written to token streams any more
	states   *state.Director

	rhythm   chan time.Duration        // for report: Progress this often from now on
	received atomic.Uint64             // bytes of the control stream, for Progress
	due      atomic.Pointer[time.Time] // when the next Progress is; nil while there is none to come
	welcomed bool                      // owned by tell

	// Guarded by Server.mu.
	hasTether  bool
	leave      func() // ends what the director is told of the worker
	superseded bool   // another process has followed the director's

	mu       sync.Mutex
	sessions map[uint64]*served // by the number that the director has for each
	lanes    *lanes             // which of tokens each of them uses
}

// serveLink serves one connection until it ends or ctx does.
func (s *Server) serveLink(ctx context.Context, conn Conn) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	l := &link{
		server: s, conn: conn, end: end, log: s.deps.Log.With(telemetry.Often(conn.RemoteAddr().String())),
		control: newQueue(maxQueued, end), written: make(chan struct{}), rhythm: make(chan time.Duration, 1), sessions: make(map[uint64]*served),
	}
	defer context.AfterFunc(conn.Context(), func() { end(context.Cause(conn.Context())) })()

	closed := make(chan struct{})
	context.AfterFunc(ctx, func() { // unblocks all reads and writes
		defer close(closed)
		code, reason := closeReason(context.Cause(ctx))
		_ = conn.CloseWithError(code, reason) // always nil
	})
	end(l.run(ctx))
	<-closed
}

// run serves the link, and returns when no goroutine of it runs any more, with what ended it. Its sessions end before the
// link leaves the Server's table, so that a newer link of the same director finds their places free.
func (l *link) run(ctx context.Context) error {
	s, err := l.greet(ctx)
	if err != nil {
		l.log.Warn("link refused", zap.Stringer("address", l.conn.RemoteAddr()), zap.Error(err), l.few())
		return err
	}
	l.log.Info("link opened")
	l.states = l.server.deps.States.Join(l.instance)
	defer l.states.Leave()
	err = l.serve(ctx, s)
	l.end(err)
	l.stopSessions()
	l.server.removeLink(l)
	if cause := context.Cause(ctx); !errors.Is(cause, errShutdown) && !errors.Is(cause, errReplaced) {
		l.server.deps.LinkEnded(l.instance)
	}
	l.running.Wait()
	l.log.Info("link closed", zap.Error(context.Cause(ctx)))
	return err
}

// few has the log leave out what comes often from this director.
func (l *link) few() zap.Field { return telemetry.From(l.conn.RemoteAddr().String()) }

// streams are a link's, once it is greeted.
type streams struct {
	control Stream
	frames  *wire.Reader // of control
	tokens  []SendStream
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
	hello, err := wire.ReadRequest[*wirepb.LinkHello](s.frames)
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

// accept checks the hello and sets what the link has from it. A refusal names what this worker allows.
func (l *link) accept(hello *wirepb.LinkHello) *wire.Error {
	l.every = time.Duration(hello.GetProgressIntervalMs()) * time.Millisecond
	n := hello.GetTokenStreams()
	switch {
	case l.server.cfg.Versions.Common(wire.Versions{Oldest: hello.GetVersion(), Newest: hello.GetVersion()}) == 0:
		return wire.Errorf(wire.CodeVersion, "director speaks version %d of the link protocol, worker %s %v",
			hello.GetVersion(), l.server.cfg.Label, l.server.cfg.Versions)
	case l.server.crowded():
		return wire.Errorf(wire.CodeLimit, "%d directors have a link already", maxLinks)
	case n < 1 || n > quicnet.MaxTokenStreams:
		return wire.Errorf(wire.CodeProtocol, "%d token streams, allowed are 1 to %d", n, quicnet.MaxTokenStreams)
	case l.every <= 0 || l.every > maxProgress:
		return wire.Errorf(wire.CodeProtocol, "progress every %v, allowed is up to %v", l.every, maxProgress)
	case hello.GetDirectorInstance() == "":
		return wire.Errorf(wire.CodeProtocol, "no director instance: tokens and snapshots belong to one")
	}
	l.tether, l.director, l.instance = hello.GetTether(), hello.GetDirectorId(), hello.GetDirectorInstance()
	l.log = l.log.With(zap.String("director", l.director))
	l.tokens = make([]*queue, n)
	for i := range l.tokens {
		l.tokens[i] = newQueue(wire.MaxBacklog, l.end)
	}
	l.lanes = newLanes(l.tokens)
	return nil
}

// turnAway tells the director why, and gives it a moment to read that.
func (l *link) turnAway(ctx context.Context, stream Stream, refusal *wire.Error) {
	if _, err := stream.Write(wire.Append(nil, refusal.Proto())); err != nil {
		return
	}
	_ = stream.Close() // fails only where the connection has
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	<-ctx.Done()
}

// serve runs the link's writers and reads its control stream.
func (l *link) serve(ctx context.Context, s streams) error {
	if ctx.Err() != nil { // a link that is dead must not end the newer one
		return context.Cause(ctx)
	}
	var writers sync.WaitGroup
	for i, out := range l.tokens {
		writers.Go(func() {
			if err := out.run(ctx, s.tokens[i]); err != nil {
				l.end(err)
			}
		})
	}
	l.running.Go(func() {
		writers.Wait()
		close(l.written)
	})
	l.server.addLink(l)
	l.running.Go(func() {
		if err := l.control.run(ctx, s.control); err != nil {
			l.end(err)
			return
		}
		_ = s.control.Close() // flushed for good: the director may close; fails only where the link has
	})
	every := l.every // read, below, may change it while report starts
	l.running.Go(func() { l.report(ctx, every) })
	return l.read(ctx, s.frames)
}

// tell tells the director whether the worker takes sessions: in the welcome at first, and then whenever that changes.
func (l *link) tell(s session.State) {
	if !l.welcomed {
		l.welcomed = true
		l.control.Send(&wirepb.LinkWelcome{
			Worker: l.server.cfg.Label, Instance: l.server.cfg.Instance, Available: s.Available, Reason: wire.Text(s.Reason),
		})
		return
	}
	l.control.Send(&wirepb.WorkerStatus{Available: s.Available, Failed: s.Failed, Draining: s.Draining, Reason: wire.Text(s.Reason)})
}

// flush lets everything go out that was put into the queues, and nothing after it. The control stream ends last, so that the
// director has read everything else when it learns of the end. flush returns when the director has closed the link, or when
// ctx ends.
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
	l.reportIn(every)
	defer l.due.Store(nil)
	for count := uint64(1); ; count++ {
		select {
		case <-ticker.C:
		case every = <-l.rhythm:
			ticker.Reset(every)
		case <-ctx.Done():
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
		l.reportIn(every)
	}
}

// stopSessions ends all sessions of the link; nothing of them goes into a queue any more when it returns.
func (l *link) stopSessions() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		s.Stop()
		l.forget(s)
	}
}

// closeReason is how the director is told why the link ends.
func closeReason(cause error) (quic.ApplicationErrorCode, string) {
	var refusal *wire.Error
	switch {
	case errors.Is(cause, errShutdown):
		return wire.QUICShutdown, string(wire.CodeShutdown)
	case errors.Is(cause, errTether):
		return wire.QUICLost, string(wire.CodeLost) + ": " + errTether.Error()
	case errors.Is(cause, errReplaced), errors.Is(cause, errNotTaken):
		return wire.QUICLost, string(wire.CodeLost) + ": " + cause.Error()
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
