package openai

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/telemetry"
)

// Config is what the door allows.
type Config struct {
	MaxStreams int           // at once on one connection
	Drain      time.Duration // that streams have to end by themselves when the director stops
	Retention  time.Duration // for which a response can be taken up again after its end
	Resume     bool          // streams may be taken up again after their client was lost
	Heartbeat  time.Duration // how long a client that waits is told nothing
	Origins    []string      // of web pages whose scripts may ask; * for all

	// Settings are the limits of requests, and what else models are called and promise.
	Settings *settings.Settings
	// Keys are those of the clients that may come; nil where clients need none.
	Keys *keys.Keys
	// Model returns the model that is meant by the name in a request, which may be empty, or why there is none.
	Model func(name string) (string, error)
	// Models returns the names of the models that there are.
	Models func() []string
	// Answers reports whether a model answers an API that generates no text.
	Answers func(model, api string) bool
	// Promise returns the class of continuity that a model's workers have, of those that are of a class at least; false for none.
	Promise func(model string, least uint32) (class uint32, ok bool)
	// Answered is told of each request for one of the APIs, and the status with which its answer begins. Optional.
	Answered func(api string, status int)

	Events *event.Bus
	Hurry  context.Context // ends a drain early
}

// Bounds on a request.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // of a whole request; not of the answer
	answerTimeout     = time.Minute      // of an answer that is no stream, from when its request has begun; and of what is left to write of one
	idleTimeout       = 2 * time.Minute
	maxHeader         = 32 << 10
	requestWindow     = 256 << 10 // that a client may send ahead of what is read, over HTTP/2
)

// What a client makes the director hold beside prompts and text, in bytes.
const (
	connectionBytes = 48 << 10 // measured: 25 KB over HTTP/1.1 with TLS, 31 over HTTP/2, 43 over HTTP/3
	exchangeBytes   = 60 << 10 // measured: 20 to 30 KB; and events that are not read, of batchMost bytes of the log
)

// Server answers all clients of the door. Serve owns the goroutines; when it returns none of them runs any more. All methods may
// be called from any goroutine.
type Server struct {
	cfg      Config
	shares   *shares.Ledger
	sessions *session.Manager
	numbers  *atomic.Uint64 // of the connections that the director has had
	clock    *clock.StallProof
	log      *zap.Logger

	handler  http.Handler
	altSvc   atomic.Pointer[string] // where HTTP/3 is served (RFC 7838); nil for nowhere that a client could trust
	h3       *http3.Server
	draining atomic.Bool
	kept     kept
	live     live

	ending  context.Context // of the streams
	end     context.CancelCauseFunc
	closing context.Context // of the connections over QUIC
	close   context.CancelFunc
}

// New returns a server that serves nobody yet. Connections are numbered by numbers, which other doors have a part in.
func New(cfg Config, shares *shares.Ledger, sessions *session.Manager, numbers *atomic.Uint64, clock *clock.StallProof, log *zap.Logger) *Server {
	s := &Server{cfg: cfg, shares: shares, sessions: sessions, numbers: numbers, clock: clock, log: log, kept: kept{byID: map[string]*exchange{}}, live: live{byNumber: map[uint64]*exchange{}}}
	if s.cfg.Hurry == nil {
		s.cfg.Hurry = context.Background()
	}
	if s.cfg.Answered == nil {
		s.cfg.Answered = func(string, int) {}
	}
	s.ending, s.end = context.WithCancelCause(context.Background())
	s.closing, s.close = context.WithCancel(context.Background())
	s.handler = s.routes()
	s.h3 = &http3.Server{Handler: s.handler, MaxHeaderBytes: maxHeader, IdleTimeout: idleTimeout, Logger: nil}
	return s
}

// Serve answers over TCP what comes to l, until ctx ends. Then it drains: it takes nothing new, and waits for streams to end for as
// long as it is configured to; those that are left then are told. It closes l. With tls nil it speaks in the clear, HTTP/2 as well.
func (s *Server) Serve(ctx context.Context, l net.Listener, tlsConf *tls.Config) error {
	errorLog, err := zap.NewStdLogAt(s.log.With(telemetry.From("")), zap.DebugLevel)
	if err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(l.Addr().String()); err == nil && tlsConf != nil {
		there := fmt.Sprintf("h3=%q; ma=86400", ":"+port)
		s.altSvc.Store(&there)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(tlsConf == nil)
	var open sync.WaitGroup
	server := &http.Server{
		Handler: s.handler, ErrorLog: errorLog, Protocols: &protocols, TLSConfig: tlsConf,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.cfg.MaxStreams, MaxReadFrameSize: 16 << 10, WriteByteTimeout: idleTimeout,
			MaxReceiveBufferPerConnection: requestWindow, MaxReceiveBufferPerStream: requestWindow,
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state { //nolint:exhaustive // only the first and the last states count
			case http.StateNew:
				open.Add(1)
			case http.StateHijacked, http.StateClosed:
				open.Done()
			}
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.drain()
		s.shutDown(server)
	})
	bounded := &listener{Listener: l, server: s}
	if tlsConf != nil {
		err = server.ServeTLS(bounded, "", "")
	} else {
		err = server.Serve(bounded)
	}
	if stop() { // Serve failed by itself
		s.drain()
		s.shutDown(server)
	} else {
		<-stopped
	}
	open.Wait()
	s.kept.close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
}

// connKey is where the context of a request has its connection.
type connKey struct{}

// drainLook is how often a drain looks whether all streams have ended.
const drainLook = 10 * time.Millisecond

// drain takes no new stream, and returns when all have ended, those that did not in time being told.
func (s *Server) drain() {
	s.draining.Store(true)
	late := time.NewTimer(s.cfg.Drain)
	defer late.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for waiting := true; waiting && s.live.count() > 0; {
		select {
		case <-look.C:
		case <-late.C:
			waiting = false
		case <-s.cfg.Hurry.Done():
			waiting = false
		}
	}
	s.end(errDraining)
	s.live.close()
}

// errDraining ends the streams that are left when the director stops.
var errDraining = errors.New("the director is shutting down")

// farewell is how long answers have to go out, once all streams are over.
const farewell = time.Second

func (s *Server) shutDown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // what it could not close is closed already
	}
	s.close() // connections over QUIC
}

// Streams returns how many exchanges are under way.
func (s *Server) Streams() int { return s.live.count() }

// Connections returns those of the exchanges under way, the oldest first: those with a higher number than after, and no more than
// limit.
func (s *Server) Connections(after uint64, limit int) []door.Connection {
	var all []door.Connection
	for _, e := range s.live.all() {
		if e.number <= after || len(all) == limit {
			continue
		}
		one := door.Connection{
			Number: e.number, ConnectionID: e.connection, Protocol: e.protocol, Client: e.client, Address: e.session.Who().Address,
			Since: e.created, Streams: []session.Snapshot{e.session.Snapshot()},
		}
		if one.Streams[0].Away != nil {
			one.Address = ""
		}
		all = append(all, one)
	}
	return all
}
