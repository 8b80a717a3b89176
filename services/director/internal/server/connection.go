package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// patience is how long a client may take to say what it wants, on a new connection or stream.
const patience = 10 * time.Second

// connection is one client's.
type connection struct {
	server *Server
	conn   *quic.Conn
	number uint64
	since  time.Time

	mu      sync.Mutex
	id      string // conn-…; empty until the client has greeted
	client  string
	streams map[*session.Session]struct{}
}

// serve greets the client and serves its streams until the connection or ctx ends.
func (c *connection) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(c.conn.Context(), cancel)()
	defer cancel()
	if err := c.greet(ctx); err != nil {
		c.server.log.Info("client did not greet", zap.Stringer("address", c.conn.RemoteAddr()), zap.Error(err))
		_ = c.conn.CloseWithError(wire.QUICProtocol, wire.Text(err.Error()))
		return
	}
	log := c.server.log.With(zap.String("connection.id", c.id))
	log.Info("client connected", zap.Stringer("address", c.conn.RemoteAddr()), zap.String("client", c.client))
	var streams sync.WaitGroup
	for {
		stream, err := c.conn.AcceptStream(ctx)
		if err != nil {
			break
		}
		streams.Go(func() { c.serveStream(ctx, stream) })
	}
	streams.Wait()
	_ = c.conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)+": the director is shutting down")
	log.Info("client disconnected")
}

// greet exchanges the hellos on the client's first stream and gives the connection its id.
func (c *connection) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := c.conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := stream.SetDeadline(deadline); err != nil {
		return err
	}
	hello, err := wire.ReadMessage[*wirepb.ClientHello](wire.NewReader(stream, wire.MaxControl))
	if err != nil {
		return err
	}
	if v := hello.GetVersion(); v != wire.Version {
		err := wire.Errorf(wire.CodeVersion, "client speaks version %d, this director %d", v, wire.Version)
		_, _ = stream.Write(wire.Append(nil, err.Proto())) // the client is turned away in any case
		return err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	c.mu.Lock()
	c.id, c.client = "conn-"+hex.EncodeToString(id), hello.GetClient()
	c.mu.Unlock()
	welcome := &wirepb.Welcome{Version: wire.Version, ConnectionId: c.id, DirectorId: c.server.cfg.DirectorID}
	if _, err = stream.Write(wire.Append(nil, welcome)); err != nil {
		return err
	}
	return stream.SetDeadline(time.Time{})
}

// serveStream reads the request and runs a session for it.
func (c *connection) serveStream(ctx context.Context, stream *quic.Stream) {
	request, err := c.readRequest(stream)
	if err != nil {
		refusal := wire.AsError(err, wire.CodeProtocol)
		c.server.log.Info("request refused", zap.String("connection.id", c.id), zap.Error(refusal))
		stream.CancelRead(wire.StreamRefused)
		_, _ = stream.Write(wire.Append(nil, refusal.Proto())) // where the client is gone there is nobody to tell
		_ = stream.Close()
		return
	}
	s := session.New(session.Identity{
		ID: c.server.sessions.Add(1), Connection: c.number, ConnectionID: c.id, StreamID: uint64(stream.StreamID()) / 4,
	}, request, stream, c.server.cfg.Session, c.server.deps)
	c.mu.Lock()
	c.streams[s] = struct{}{}
	c.mu.Unlock()
	s.Run(ctx)
	c.mu.Lock()
	delete(c.streams, s)
	c.mu.Unlock()
}

// readRequest reads and checks what the client wants. What it leaves open is filled in.
func (c *connection) readRequest(stream *quic.Stream) (*wirepb.Request, error) {
	if err := stream.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	cfg := c.server.cfg
	frames := wire.NewReader(stream, cfg.MaxPromptBytes+wire.MaxControl)
	generate, err := wire.ReadMessage[*wirepb.Generate](frames)
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
	most := uint32(cfg.Session.MaxTokens)
	switch {
	case len(request.GetPrompt()) > cfg.MaxPromptBytes:
		return nil, tooLong(cfg.MaxPromptBytes)
	case request.GetMaxTokens() > most:
		return nil, wire.Errorf(wire.CodeLimit, "max_tokens is %d, this director allows %d", request.GetMaxTokens(), most)
	case request.GetMaxTokens() == 0:
		request.MaxTokens = most
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		return nil, wire.Errorf(wire.CodeProtocol, "the client's stream must end after Generate")
	}
	return request, nil
}

func tooLong(most int) error {
	return wire.Errorf(wire.CodeLimit, "the prompt is longer than the %d bytes that this director allows", most)
}

func (c *connection) snapshot() (Snapshot, bool) {
	proof, err := quicnet.ReadProof(c.conn)
	if err != nil {
		return Snapshot{}, false // the handshake is not over
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		return Snapshot{}, false
	}
	all := Snapshot{
		ConnectionID: c.id, ODCID: proof.ODCID, Exporter: proof.Exporter, Client: c.client,
		Address: c.conn.RemoteAddr().String(), Since: c.since, Streams: make([]session.Snapshot, 0, len(c.streams)),
	}
	for s := range c.streams {
		all.Streams = append(all.Streams, s.Snapshot())
	}
	slices.SortFunc(all.Streams, func(a, b session.Snapshot) int { return cmp.Compare(a.StreamID, b.StreamID) })
	return all, true
}
