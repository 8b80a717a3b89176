package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	streamlog "github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// requestTimeout is how long a client may take to say what it wants, on a new connection or stream.
	requestTimeout = 10 * time.Second
	// refusalTimeout is how long a client that is turned away has to read why.
	refusalTimeout = time.Second
	// lingerTime is how long a connection stays after its last stream has ended, when the director drains: what is closed
	// loses what the client has not acknowledged, and quic-go tells nobody what that is.
	lingerTime  = time.Second
	maxPriority = 255
	// unfinishedMost is how many requests of one connection may be unfinished; further ones wait until one is whole.
	unfinishedMost = 16
)

// connection is one client's QUIC connection, from its hello to its end. Its id is drawn when the client greets, and
// stays for the connection's life, across all workers. The goroutine of serve owns it; those of its streams read what
// greet has set before the first of them was accepted.
type connection struct {
	server *Server
	conn   *quic.Conn
	number uint64
	since  time.Time
	watch  *quicnet.Watch // of the client, while it has streams
	holder *shares.Holder
	memory *shares.Account

	reading chan struct{} // has an entry for each request that is not whole

	mu      sync.Mutex // for snapshot, which may come before the hello
	id      string     // conn-…; empty until the client has greeted
	client  string     // the name of the client's program, as it says itself
	streams int        // that are served
	unused  time.Time  // since when there is none; zero if there never was one
	end     context.CancelCauseFunc
}

// serve greets the client and serves its streams until the connection or ctx ends. It returns when the last stream has
// ended.
func (c *connection) serve(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	c.end = cancel
	c.mu.Unlock()
	if c.server.draining.Load() {
		c.leave() // the drain may have come before there was anything to end
	}
	defer context.AfterFunc(c.conn.Context(), func() { cancel(context.Cause(c.conn.Context())) })()
	defer cancel(nil)
	if err := c.greet(ctx); err != nil {
		code, reason := closing(ctx, err)
		c.server.log.Info("client did not greet", zap.Stringer("address", c.conn.RemoteAddr()), zap.String("reason", reason),
			telemetry.From(c.address()))
		_ = c.conn.CloseWithError(code, reason)
		return
	}
	log := c.server.log.With(zap.String("connection.id", c.id), telemetry.Often(c.address()))
	log.Debug("client connected", zap.Stringer("address", c.conn.RemoteAddr()), zap.String("client", c.client))
	c.reading = make(chan struct{}, unfinishedMost)
	var streams sync.WaitGroup
	streams.Go(func() { c.dropDatagrams(ctx) })
	for {
		stream, err := c.conn.AcceptStream(ctx)
		if err != nil {
			break
		}
		select {
		case c.reading <- struct{}{}:
		case <-ctx.Done():
			continue // it is found out at once
		}
		streams.Go(func() { c.serveStream(ctx, stream) })
	}
	streams.Wait()
	_ = c.conn.CloseWithError(wire.QUICShutdown, shutdown)
	log.Log(departure(context.Cause(ctx)))
}

// dropDatagrams reads the datagrams of a client, which show that it is there, and mean nothing else: quic-go would keep
// 128 of them.
func (c *connection) dropDatagrams(ctx context.Context) {
	for {
		if _, err := c.conn.ReceiveDatagram(ctx); err != nil {
			return
		}
	}
}

// idle returns for how long the connection has had no stream.
func (c *connection) idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.streams > 0:
		return 0
	case c.unused.IsZero():
		return time.Since(c.since)
	}
	return time.Since(c.unused)
}

// begin counts a stream in, and reports whether it may be served. Each that may be has to end.
func (c *connection) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.draining.Load() {
		return false
	}
	c.streams++
	return true
}

func (c *connection) ended() {
	c.mu.Lock()
	if c.streams--; c.streams == 0 {
		c.unused = time.Now()
	}
	c.mu.Unlock()
	if c.server.draining.Load() {
		c.leave()
	}
}

// errDrained ends a connection that has no stream left, at a director that takes no new one.
var errDrained = errors.New("the director is shutting down")

// leave ends the connection if it has no stream, and its last one's end has had time to arrive. It is called while the
// director drains.
func (c *connection) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams > 0 || c.end == nil {
		return
	}
	if left := lingerTime - time.Since(c.unused); left > 0 {
		time.AfterFunc(left, c.leave)
		return
	}
	c.end(errDrained)
}

// lost ends the connection of a client from which nothing comes any more. If it is only cut off it can read why.
func (c *connection) lost() {
	reason := fmt.Sprintf("%s: nothing came from this client for %v", wire.CodeLost, c.server.cfg.ClientIdle)
	_ = c.conn.CloseWithError(wire.QUICLost, reason) // always nil
}

// departure says how a client left, by how its connection ended. An ordinary end is of no interest: what counts are the
// streams.
func departure(cause error) (zapcore.Level, string) {
	if wire.LostPeer(cause) {
		return zap.InfoLevel, "client lost"
	}
	return zap.DebugLevel, "client disconnected"
}

// address is where the client is.
func (c *connection) address() string { return c.conn.RemoteAddr().String() }

const shutdown = string(wire.CodeShutdown) + ": the director is shutting down"

// closing is how a client that did not greet is told why its connection ends: because ctx did, or because of err. The
// text is in the reason of QUIC's CONNECTION_CLOSE (RFC 9000 §19.19): there may be no stream to write it to.
func closing(ctx context.Context, err error) (quic.ApplicationErrorCode, string) {
	var refusal *wire.Error
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return wire.QUICShutdown, shutdown
	case errors.As(err, &refusal):
		return wire.QUICRefused, wire.Text(refusal.Error())
	case errors.As(err, &timeout) && timeout.Timeout():
		return wire.QUICProtocol, fmt.Sprintf("%s: no hello within %v", wire.CodeProtocol, requestTimeout)
	}
	return wire.QUICProtocol, wire.Text(fmt.Sprintf("%s: %v", wire.CodeProtocol, err))
}

// greet exchanges the hellos on the client's first stream, within requestTimeout, and gives the connection its id. A
// client of another protocol version is told both versions.
func (c *connection) greet(ctx context.Context) error {
	accepting, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := c.conn.AcceptStream(accepting)
	if err != nil {
		return err
	}
	defer unblock(ctx, stream)()
	deadline, _ := accepting.Deadline()
	if err := stream.SetDeadline(deadline); err != nil {
		return err
	}
	hello, err := wire.ReadRequest[*wirepb.ClientHello](wire.NewReaderSize(stream, wire.MaxControl, wire.SmallBuffer))
	if err != nil {
		return err
	}
	if v := hello.GetVersion(); v != wire.Version {
		err := wire.Errorf(wire.CodeVersion, "client speaks version %d, this director %d", v, wire.Version)
		turnAway(ctx, stream, err)
		return err
	}
	c.mu.Lock()
	c.id, c.client = "conn-"+identity.NewID(), wire.Name(hello.GetClient())
	c.mu.Unlock()
	welcome := &wirepb.Welcome{Version: wire.Version, ConnectionId: c.id, DirectorId: c.server.cfg.DirectorID}
	if _, err = stream.Write(wire.Append(nil, welcome)); err != nil {
		return err
	}
	return stream.SetDeadline(time.Time{})
}

// unblock makes reads and writes of a stream end when ctx does, until the function that it returns is called: QUIC
// streams know deadlines, but no contexts.
func unblock(ctx context.Context, stream *quic.Stream) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		stream.CancelRead(wire.StreamCancel)
		stream.CancelWrite(wire.StreamCancel)
	})
}

// turnAway tells the client why it is refused, and gives it a moment to read that before the connection is closed.
func turnAway(ctx context.Context, stream *quic.Stream, refusal *wire.Error) {
	if _, err := stream.Write(wire.Append(nil, refusal.Proto())); err != nil {
		return
	}
	_ = stream.Close() // fails only where the connection has
	ctx, cancel := context.WithTimeout(ctx, refusalTimeout)
	defer cancel()
	<-ctx.Done()
}

// serveStream reads the request and runs a session for it, on this goroutine. Reading the request ends with the
// connection; afterwards the session's leg is the only one to touch the stream.
func (c *connection) serveStream(ctx context.Context, stream *quic.Stream) {
	defer c.watch.Begin()()
	request, err := c.awaitRequest(ctx, stream)
	if ctx.Err() != nil {
		return // the connection ends, and says why
	}
	if err == nil && !c.begin() {
		err = wire.Errorf(wire.CodeShutdown, "the director is shutting down, and takes no new streams")
	} else if err == nil {
		defer c.ended()
		err = c.holder.Take(shares.Streams, 1)
	}
	if err != nil {
		c.refuse(stream, wire.AsError(err, wire.CodeProtocol))
		return
	}
	defer c.holder.Give(shares.Streams, 1)
	memory, err := c.holder.Open(streamBytes + 2*len(request.GetPrompt())) // a worker's link has a copy
	if err != nil {
		c.refuse(stream, wire.AsError(err, wire.CodeLimit))
		return
	}
	defer memory.Close()
	s := c.server.sessions.Create(session.Identity{
		Connection: c.number, ConnectionID: c.id, StreamID: uint64(stream.StreamID()) / 4,
		Address: c.address(), Holder: c.holder.Name(),
	}, request, memory, func(log *streamlog.Log, tell func(any)) session.Leg { return newLeg(stream, log, c.server.clock, tell) })
	defer c.server.sessions.Retire(s)
	s.Run(ctx)
	var stopped *quic.StreamError
	if errors.As(context.Cause(stream.Context()), &stopped) {
		stream.CancelWrite(stopped.ErrorCode) // before that QUIC does not count the stream as over
	}
}

// awaitRequest reads the request, for which the connection has a place; there are as many for each client as it may have
// unfinished ones, and no more than a few are kept for a connection.
func (c *connection) awaitRequest(ctx context.Context, stream *quic.Stream) (*wirepb.Request, error) {
	defer func() { <-c.reading }()
	if err := c.holder.Take(shares.Requests, 1); err != nil {
		return nil, err
	}
	defer c.holder.Give(shares.Requests, 1)
	defer unblock(ctx, stream)()
	return c.readRequest(stream)
}

// refuse tells the client why its stream is not served. It waits for nobody: a client that leaves no room for the
// answer gets none but the stream's code.
func (c *connection) refuse(stream *quic.Stream, refusal *wire.Error) {
	c.server.log.Info("request refused", zap.String("connection.id", c.id), zap.Error(refusal),
		telemetry.From(c.address()))
	stream.CancelRead(wire.StreamRefused)
	if stream.TryWriteAll(wire.Append(nil, refusal.Proto())) != nil {
		stream.CancelWrite(wire.StreamRefused)
		return
	}
	_ = stream.Close() // fails only where the connection has
}

// readRequest reads and checks what the client wants, within requestTimeout. What the client leaves open is filled in.
// The error says which bound the request is beyond.
func (c *connection) readRequest(stream *quic.Stream) (*wirepb.Request, error) {
	if err := stream.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	cfg := c.server.cfg
	frames := wire.NewReaderSize(stream, cfg.MaxPromptBytes+wire.MaxControl, wire.SmallBuffer)
	generate, err := wire.ReadRequest[*wirepb.Generate](frames)
	if errors.Is(err, wire.ErrTooLarge) {
		return nil, tooLong(cfg.MaxPromptBytes)
	}
	if err != nil {
		return nil, err
	}
	request := generate.GetRequest()
	if request == nil {
		request = &wirepb.Request{}
	}
	most := uint32(cfg.MaxTokens)
	switch {
	case len(request.GetPrompt()) > cfg.MaxPromptBytes:
		return nil, tooLong(cfg.MaxPromptBytes)
	case request.GetMaxTokens() > most:
		return nil, wire.Errorf(wire.CodeLimit, "max_tokens is %d, this director allows %d", request.GetMaxTokens(), most)
	case request.GetPriority() > maxPriority:
		return nil, wire.Errorf(wire.CodeInvalid, "priority is %d; give 0 to %d", request.GetPriority(), maxPriority)
	case request.GetMaxTokens() == 0:
		request.MaxTokens = most
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		return nil, wire.Errorf(wire.CodeProtocol, "the client's stream must end after Generate")
	}
	return request, nil
}

// tooLong refuses a prompt.
func tooLong(most int) error {
	return wire.Errorf(wire.CodeLimit, "the prompt is longer than the %d bytes that this director allows", most)
}

// snapshot returns the connection as it is now; false before the client's hello.
func (c *connection) snapshot() (Snapshot, bool) {
	proof, err := quicnet.ReadProof(c.conn)
	if err != nil {
		return Snapshot{}, false // the handshake is not over
	}
	c.mu.Lock()
	id, client := c.id, c.client
	c.mu.Unlock()
	if id == "" {
		return Snapshot{}, false
	}
	sessions := c.server.sessions.Of(c.number)
	all := Snapshot{
		Number: c.number, ConnectionID: id, ODCID: proof.ODCID, Exporter: proof.Exporter, ExporterHash: proof.ExporterHash(),
		Client: client, Address: c.conn.RemoteAddr().String(), Since: c.since, Streams: make([]session.Snapshot, len(sessions)),
	}
	for i, s := range sessions {
		all.Streams[i] = s.Snapshot()
	}
	return all, true
}
