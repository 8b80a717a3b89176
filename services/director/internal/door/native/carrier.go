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

	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
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

// carrier is one QUIC connection of a client, from its hello to its end. It carries the streams of a connection, and may
// be the second to do so. The goroutine of serve owns it; those of its streams read what greet has set before the first of
// them was accepted.
type carrier struct {
	server *Server
	conn   *quic.Conn
	since  time.Time
	watch  *quicnet.Watch // of the client, while it has streams
	holder *shares.Holder
	memory *shares.Account

	reading chan struct{} // has an entry for each request that is not whole
	control *wire.Reader  // what follows the hello

	mu         sync.Mutex
	connection *connection // nil until the client has greeted
	end        context.CancelCauseFunc
}

// serve greets the client and serves its streams until the QUIC connection or ctx ends. If the director ends it, it
// returns when the last stream has ended.
func (c *carrier) serve(serving context.Context, running *sync.WaitGroup) {
	ctx, cancel := context.WithCancelCause(serving)
	c.mu.Lock()
	c.end = cancel
	c.mu.Unlock()
	defer context.AfterFunc(c.conn.Context(), func() { cancel(context.Cause(c.conn.Context())) })()
	defer cancel(nil)
	if err := c.greet(ctx, serving, running); err != nil {
		code, reason := closing(ctx, err)
		c.server.log.Info("client did not greet", zap.Stringer("address", c.conn.RemoteAddr()), zap.String("reason", reason),
			telemetry.From(c.address()))
		_ = c.conn.CloseWithError(code, reason)
		return
	}
	log := c.server.log.With(zap.String("connection.id", c.connection.id), telemetry.Often(c.address()))
	log.Debug("client connected", zap.Stringer("address", c.conn.RemoteAddr()), zap.String("client", c.connection.client))
	if c.server.draining.Load() {
		c.leave() // the drain may have come before there was anything to end
	}
	c.reading = make(chan struct{}, unfinishedMost)
	var reading, streams sync.WaitGroup
	defer reading.Wait() // it ends with the QUIC connection
	reading.Go(func() { c.dropDatagrams(ctx) })
	reading.Go(c.readControl)
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
	cause := c.cause(ctx)
	c.connection.lose(c, cause)
	if serving.Err() != nil {
		c.connection.sessions.Wait() // each tells the client how its stream ends
	}
	_ = c.conn.CloseWithError(wire.QUICShutdown, shutdown)
	log.Log(departure(cause))
}

// cause returns why the QUIC connection ended, or, if ctx has, why the director ends it. One of the two is so, or is about
// to be: QUIC ends streams before it says that the connection is over.
func (c *carrier) cause(ctx context.Context) error {
	select {
	case <-c.conn.Context().Done():
		return context.Cause(c.conn.Context())
	case <-ctx.Done():
	}
	if err := context.Cause(c.conn.Context()); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// readControl reads what the client has to say beside its streams: what it has read of them.
func (c *carrier) readControl() {
	for {
		ack, err := wire.ReadRequest[*wirepb.Ack](c.control)
		if wire.BadFrame(err) {
			_ = c.conn.CloseWithError(wire.QUICProtocol, wire.Text(fmt.Sprintf("%s: %v", wire.CodeProtocol, err)))
		}
		if err != nil {
			return // it has nothing more to say
		}
		if s := c.connection.session(ack.GetStream()); s != nil {
			s.Acknowledge(ack.GetRecords())
		}
	}
}

// dropDatagrams reads the datagrams of a client, which show that it is there, and mean nothing else: quic-go would keep
// 128 of them.
func (c *carrier) dropDatagrams(ctx context.Context) {
	for {
		if _, err := c.conn.ReceiveDatagram(ctx); err != nil {
			return
		}
	}
}

// idle returns for how long the client has had no stream.
func (c *carrier) idle() time.Duration {
	c.mu.Lock()
	connection := c.connection
	c.mu.Unlock()
	if connection == nil {
		return time.Since(c.since)
	}
	return connection.idle()
}

// errDrained ends a connection that has no stream left, at a director that takes no new one.
var errDrained = wire.Errorf(wire.CodeShutdown, "the director is shutting down, and takes nothing new")

// leave ends the connection if it has no stream, and its last one's end has had time to arrive. It is called while the
// director drains.
func (c *carrier) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		return
	}
	left := time.Duration(0)
	if c.connection != nil {
		left = c.connection.lingers()
	}
	switch {
	case left < 0: // it has streams
	case left > 0:
		time.AfterFunc(left, c.leave)
	default:
		c.end(errDrained)
	}
}

// lost ends the connection of a client from which nothing comes any more. If it is only cut off it can read why.
func (c *carrier) lost() {
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
func (c *carrier) address() string { return c.conn.RemoteAddr().String() }

const shutdown = string(wire.CodeShutdown) + ": the director is shutting down"

// closing is how a client that did not greet is told why its connection ends: because ctx did, or because of err. The
// text is in the reason of QUIC's CONNECTION_CLOSE (RFC 9000 §19.19): there may be no stream to write it to.
func closing(ctx context.Context, err error) (quic.ApplicationErrorCode, string) {
	var refusal *wire.Error
	var timeout net.Error
	switch {
	case ctx.Err() != nil, errors.Is(err, errDrained):
		return wire.QUICShutdown, shutdown
	case errors.As(err, &refusal):
		return wire.QUICRefused, wire.Text(refusal.Error())
	case errors.As(err, &timeout) && timeout.Timeout():
		return wire.QUICProtocol, fmt.Sprintf("%s: no hello within %v", wire.CodeProtocol, requestTimeout)
	}
	return wire.QUICProtocol, wire.Text(fmt.Sprintf("%s: %v", wire.CodeProtocol, err))
}

// greet exchanges the hellos on the client's first stream, within requestTimeout, and finds the connection that the
// client comes back to, or gives it a new one. A client of another protocol version is told both versions.
func (c *carrier) greet(ctx, serving context.Context, running *sync.WaitGroup) error {
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
	c.control = wire.NewReaderSize(stream, wire.MaxControl, wire.SmallBuffer)
	hello, err := wire.ReadRequest[*wirepb.ClientHello](c.control)
	if err != nil {
		return err
	}
	connection, err := c.welcome(hello, serving, running)
	if err != nil {
		turnAway(ctx, stream, wire.AsError(err, wire.CodeInternal))
		return err
	}
	c.mu.Lock()
	c.connection = connection
	c.mu.Unlock()
	welcome := &wirepb.Welcome{Version: wire.Version, ConnectionId: connection.id, DirectorId: c.server.cfg.DirectorID}
	if len(connection.secret) > 0 {
		welcome.Secret, welcome.ResumeWaitMs = connection.secret, uint64(c.server.cfg.ResumeWait.Milliseconds())
	}
	if _, err = stream.Write(wire.Append(nil, welcome)); err == nil {
		err = stream.SetDeadline(time.Time{})
	}
	if err != nil {
		connection.lose(c, err)
	}
	return err
}

// welcome returns the connection of a client that says hello, or why there is none for it.
func (c *carrier) welcome(hello *wirepb.ClientHello, serving context.Context, running *sync.WaitGroup) (*connection, error) {
	key, known := c.server.cfg.Keys.Authenticate(hello.GetKey())
	switch v := hello.GetVersion(); {
	case v != wire.Version:
		return nil, wire.Errorf(wire.CodeVersion, "client speaks version %d, this director %d", v, wire.Version)
	case !known:
		return nil, unknownKey(hello.GetKey())
	case hello.GetReturn() != nil:
		return c.server.connections.back(c, hello.GetReturn(), key)
	case c.server.draining.Load():
		return nil, errDrained
	}
	return c.server.connections.open(serving, running, c, hello, key)
}

// unknownKey refuses a client that shows no key that is known here.
func unknownKey(shown string) error {
	what := "the one that was shown is not known here"
	if shown == "" {
		what = "none was shown"
	}
	return wire.Errorf(wire.CodeUnauthorized, "the director serves clients that have a key, and %s; give one in a file (CONNECTION_SWAP_CLIENT_KEY_FILE), or in connswap.Options.Key", what)
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

// serveStream reads what the client wants of a stream, and has a session begin, or go on, over it. Reading ends with the
// connection; afterwards the session's leg is the only one to touch the stream.
func (c *carrier) serveStream(ctx context.Context, stream *quic.Stream) {
	generate, resume, err := c.awaitRequest(ctx, stream)
	if ctx.Err() != nil {
		return // the connection ends, and says why
	}
	if err == nil {
		if resume != nil {
			err = c.connection.resume(c, stream, resume)
		} else {
			err = c.connection.begin(c, stream, generate)
		}
	}
	if err != nil {
		c.refuse(stream, wire.AsError(err, wire.CodeProtocol))
	}
}

// awaitRequest reads the request, for which the connection has a place; there are as many for each client as it may have
// unfinished ones, and no more than a few are kept for a connection.
func (c *carrier) awaitRequest(ctx context.Context, stream *quic.Stream) (*wirepb.Generate, *wirepb.Resume, error) {
	defer c.watch.Begin()()
	defer func() { <-c.reading }()
	if err := c.holder.Take(shares.Requests, 1); err != nil {
		return nil, nil, err
	}
	defer c.holder.Give(shares.Requests, 1)
	defer unblock(ctx, stream)()
	return c.readRequest(stream)
}

// refuse tells the client why its stream is not served. It waits for nobody: a client that leaves no room for the
// answer gets none but the stream's code.
func (c *carrier) refuse(stream *quic.Stream, refusal *wire.Error) {
	c.server.limitHit(c.connection.id, refusal)
	c.server.log.Info("request refused", zap.String("connection.id", c.connection.id), zap.Error(refusal),
		telemetry.From(c.address()))
	stream.CancelRead(wire.StreamRefused)
	if stream.TryWriteAll(wire.Append(nil, refusal.Proto())) != nil {
		stream.CancelWrite(wire.StreamRefused)
		return
	}
	_ = stream.Close() // fails only where the connection has
}

// readRequest reads and checks what the client wants, within requestTimeout: that a stream is begun, or one taken up. What
// the client leaves open is filled in. The error says which bound the request is beyond.
func (c *carrier) readRequest(stream *quic.Stream) (*wirepb.Generate, *wirepb.Resume, error) {
	if err := stream.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, nil, err
	}
	now := c.server.cfg.Settings.Now()
	longest := now.Director.MaxPromptBytes
	frames := wire.NewReaderSize(stream, longest+wire.MaxControl, wire.SmallBuffer)
	m, err := wire.ReadRequest[wire.Message](frames)
	if errors.Is(err, wire.ErrTooLarge) {
		return nil, nil, tooLong(longest)
	}
	if err != nil {
		return nil, nil, err
	}
	generate, _ := m.(*wirepb.Generate)
	resume, _ := m.(*wirepb.Resume)
	switch {
	case generate != nil:
		err = c.check(generate, now)
	case resume == nil:
		err = wire.Errorf(wire.CodeProtocol, "the client's stream must begin with Generate or Resume")
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		return nil, nil, wire.Errorf(wire.CodeProtocol, "the client's stream must end after its first frame")
	}
	return generate, resume, nil
}

// check returns which bound a request is beyond, and fills in what it leaves open.
func (c *carrier) check(generate *wirepb.Generate, now *settings.Snapshot) error {
	if generate.Request == nil {
		generate.Request = &wirepb.Request{}
	}
	request := generate.GetRequest()
	longest, most := now.Director.MaxPromptBytes, uint32(now.Director.MaxTokens)
	switch {
	case len(request.GetPrompt())+len(request.GetBody()) > longest:
		return tooLong(longest)
	case request.GetChoices() > wire.MaxChoice+1:
		return wire.Errorf(wire.CodeInvalid, "%d choices; give 1 to %d", request.GetChoices(), wire.MaxChoice+1)
	case request.GetMaxTokens() > most:
		return wire.Errorf(wire.CodeLimit, "max_tokens is %d, this director allows %d", request.GetMaxTokens(), most)
	case request.GetPriority() > maxPriority:
		return wire.Errorf(wire.CodeInvalid, "priority is %d; give 0 to %d", request.GetPriority(), maxPriority)
	}
	key := c.connection.shown()
	if request.GetStandby() && !key.MayStandBy() {
		return wire.Errorf(wire.CodeForbidden, "the key %s may not ask for a standby", key.Name())
	}
	request.Priority = key.Priority(request.GetPriority())
	model, err := key.Model(request.GetModel(), now.Own(request.GetModel()), c.server.cfg.Model)
	if err != nil {
		return err
	}
	request.Model = model
	return ofModel(request, now)
}

// ofModel returns which bound on requests for its model a request is beyond, and fills in what is the model's where it leaves that open.
func ofModel(request *wirepb.Request, now *settings.Snapshot) error {
	most := uint32(now.MaxTokens(request.GetModel()))
	if request.GetMaxTokens() > most {
		return wire.Errorf(wire.CodeLimit, "max_tokens is %d, this director allows %d for the model %q", request.GetMaxTokens(), most, request.GetModel())
	}
	if request.GetMaxTokens() == 0 {
		request.MaxTokens = most
	}
	if request.GetContinuity() == 0 {
		request.Continuity = now.Continuity(request.GetModel(), 0)
	}
	return nil
}

// tooLong refuses a prompt.
func tooLong(most int) error {
	return wire.Errorf(wire.CodeLimit, "the prompt is longer than the %d bytes that this director allows", most)
}
