// Package native is the door for clients that speak connswap over QUIC, on the director's USER port: it keeps their
// connections, and creates a session for each of their streams.
package native

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Config bounds what clients may ask for. What goes beyond is refused, with CodeLimit.
type Config struct {
	DirectorID string
	ClientIdle time.Duration // without a packet, while there are streams, after which a client is lost; 0 for never
	Drain      time.Duration // that streams have to end by themselves when the director stops
	ResumeWait time.Duration // that a client may be away, and find its streams when it comes back; 0 for not at all

	// Settings are the limits of requests, and what models are called besides.
	Settings *settings.Settings

	// Model returns the model that is meant by the name in a request, which may be empty, or why there is none. Optional.
	Model func(name string) (string, error)

	// Keys are those of the clients that may come. Optional.
	Keys *keys.Keys

	// Numbers gives each connection its number, of all that the director has had. Optional.
	Numbers *atomic.Uint64

	// Others serve connections that speak other protocols, by ALPN, until these end. Optional.
	Others map[string]func(conn *quic.Conn)

	Events *event.Bus // optional

	// Names are those of the clients that may come, by their certificates; none for all.
	Names []string

	// Hurry ends a drain early: what streams are left then are told at once. Optional.
	Hurry context.Context
}

// drainLook is how often a drain looks whether all clients have left.
const drainLook = 10 * time.Millisecond

// Server has the connections of all native clients. Serve owns the goroutines: one for each connection, and one for
// each stream; when it returns, none of them runs any more. All methods may be called from any goroutine.
type Server struct {
	cfg      Config
	shares   *shares.Ledger // of connections, unfinished requests, streams and bytes
	sessions *session.Manager
	clock    *clock.StallProof
	log      *zap.Logger

	connections connections
	draining    atomic.Bool

	mu       sync.Mutex
	carriers map[*carrier]struct{} // from admit to dismiss
}

// New returns a server that serves nobody yet.
func New(cfg Config, shares *shares.Ledger, sessions *session.Manager, clock *clock.StallProof, log *zap.Logger) *Server {
	if cfg.Model == nil {
		cfg.Model = func(name string) (string, error) { return name, nil }
	}
	if cfg.Numbers == nil {
		cfg.Numbers = &atomic.Uint64{}
	}
	if cfg.Hurry == nil {
		cfg.Hurry = context.Background()
	}
	s := &Server{
		cfg: cfg, shares: shares, sessions: sessions, clock: clock, log: log,
		connections: connections{byID: map[string]*connection{}}, carriers: map[*carrier]struct{}{},
	}
	s.connections.server = s
	return s
}

// Serve accepts clients until ctx ends. Then it drains: it takes no new stream, leaves clients as their last one ends,
// and waits for that as long as it is configured to; who still has one then is told that the director shuts down. It
// closes l. A connection beyond the limit is told so, and costs nothing more.
func (s *Server) Serve(ctx context.Context, l *quicnet.Listener) error {
	defer l.Close() //nolint:errcheck // the process is leaving; the accept error is the one that counts
	serving, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer s.makeRoom(serving)()
	defer s.connections.close()
	var running sync.WaitGroup
	defer running.Wait()
	drained := make(chan struct{})
	stopDrain := context.AfterFunc(ctx, func() {
		defer close(drained)
		s.drain()
		end(context.Cause(ctx))
	})
	defer func() {
		if !stopDrain() {
			<-drained
		}
		end(nil) // before running.Wait
	}()
	for {
		conn, err := l.Accept(serving)
		if serving.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.accept(serving, conn, &running)
	}
}

// accept serves a connection on a goroutine of its own, unless it may not be served.
func (s *Server) accept(ctx context.Context, conn *quic.Conn, running *sync.WaitGroup) {
	if other := s.cfg.Others[conn.ConnectionState().TLS.NegotiatedProtocol]; other != nil {
		running.Go(func() { other(conn) })
		return
	}
	if s.draining.Load() && !s.connections.away() {
		_ = conn.CloseWithError(wire.QUICShutdown, shutdown)
		return
	}
	c := &carrier{server: s, conn: conn, since: time.Now()}
	c.watch = quicnet.NewWatch(conn, s.cfg.ClientIdle, c.lost)
	if err := s.admit(c); err != nil {
		s.limitHit("", err)
		s.log.Warn("client refused", zap.Error(err), zap.Stringer("address", conn.RemoteAddr()), telemetry.From(c.address()))
		_ = conn.CloseWithError(wire.QUICRefused, wire.Text(err.Error()))
		return
	}
	running.Go(func() {
		defer s.dismiss(c)
		c.serve(ctx, running)
	})
}

// limitHit says that a client was refused for want of something, if that is why.
func (s *Server) limitHit(connection string, err error) {
	if e := wire.AsError(err, wire.CodeInternal); e.Code == wire.CodeLimit {
		s.cfg.Events.Publish(event.LimitHit{ConnectionID: connection, Code: string(e.Code), Message: e.Message})
	}
}

// drain returns when all clients have left, which they do after their last stream, or those that are left have had
// their time.
func (s *Server) drain() {
	s.draining.Store(true)
	for _, c := range s.all() {
		c.leave()
	}
	if s.cfg.Drain == 0 {
		return
	}
	if streams := s.sessions.Running(); streams > 0 {
		s.log.Info("no new streams; those that run may end", zap.Int("streams", streams), zap.Duration("within", s.cfg.Drain))
	}
	late := time.NewTimer(s.cfg.Drain)
	defer late.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for s.Open() > 0 || s.connections.away() {
		select {
		case <-look.C:
			continue
		case <-late.C:
		case <-s.cfg.Hurry.Done():
		}
		s.log.Warn("streams are cut off, and told", zap.Int("streams", s.sessions.Running()))
		return
	}
}

// admit counts a connection in, or returns why it may not be served.
func (s *Server) admit(c *carrier) (err error) {
	if err := s.mayCome(c.conn); err != nil {
		return err
	}
	c.holder = s.shares.Join(holderOf(c.conn))
	if err = c.holder.Take(shares.Connections, 1); err != nil {
		c.holder.Leave()
		return err
	}
	if c.memory, err = c.holder.Open(connectionBytes); err != nil {
		c.holder.Give(shares.Connections, 1)
		c.holder.Leave()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carriers[c] = struct{}{}
	return nil
}

// mayCome returns an error unless a client is one of those that may come.
func (s *Server) mayCome(conn *quic.Conn) error {
	if len(s.cfg.Names) == 0 {
		return nil
	}
	names := identity.PeerNames(conn.ConnectionState().TLS)
	if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(s.cfg.Names, name) }) {
		return nil
	}
	who := "this certificate names nobody"
	if len(names) > 0 {
		who = fmt.Sprintf("%q is not one of them", names[0])
	}
	return wire.Errorf(wire.CodeUnauthorized, "the director serves clients that it knows by name (CONNECTION_SWAP_DIRECTOR_CLIENT_NAMES); %s", who)
}

// dismiss forgets a connection that has ended.
func (s *Server) dismiss(c *carrier) {
	s.mu.Lock()
	delete(s.carriers, c)
	s.mu.Unlock()
	c.memory.Close()
	c.holder.Give(shares.Connections, 1)
	c.holder.Leave()
}

// Open returns how many QUIC connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.carriers)
}

// Known returns how many connections there are, those of clients that are lost and may come back among them.
func (s *Server) Known() int { return len(s.connections.all()) }

// all returns the clients' QUIC connections.
func (s *Server) all() []*carrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.carriers))
}

// Connections returns what is connected now, the oldest first: those with a higher number than after, and no more than
// limit. ODCID and exporter are read anew from each connection: so they prove that it is still the very same one.
func (s *Server) Connections(after uint64, limit int) []door.Connection {
	conns := s.connections.all()
	all := make([]door.Connection, 0, min(len(conns), limit))
	for _, c := range conns {
		if len(all) == limit {
			break
		}
		if c.number <= after {
			continue
		}
		if snapshot, ok := c.snapshot(); ok {
			all = append(all, snapshot)
		}
	}
	return all
}
