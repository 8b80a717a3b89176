// Package native is the door for clients that speak connswap over QUIC, on the director's USER port: it keeps their
// connections, and creates a session for each of their streams.
package native

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Config bounds what clients may ask for. What goes beyond is refused, with CodeLimit.
type Config struct {
	DirectorID     string
	MaxConnections int
	MaxSessions    int // at once, of all clients
	MaxPromptBytes int
	MaxTokens      int           // of one stream
	ClientIdle     time.Duration // without a packet, while there are streams, after which a client is lost; 0 for never
}

// Server has the connections of all native clients. Serve owns the goroutines: one for each connection, and one for
// each stream; when it returns, none of them runs any more. All methods may be called from any goroutine.
type Server struct {
	cfg      Config
	sessions *session.Manager
	clock    *clock.StallProof
	log      *zap.Logger

	connections atomic.Uint64 // accepted so far: the newest one's number
	streams     quota

	mu    sync.Mutex
	conns map[*connection]struct{} // from admit to dismiss; at most cfg.MaxConnections
}

// New returns a server that serves nobody yet.
func New(cfg Config, sessions *session.Manager, clock *clock.StallProof, log *zap.Logger) *Server {
	return &Server{
		cfg: cfg, sessions: sessions, clock: clock, log: log,
		streams: quota{limit: int64(cfg.MaxSessions)}, conns: map[*connection]struct{}{},
	}
}

// Serve accepts clients until ctx ends; then it ends their streams, tells them that the director shuts down, and
// closes l. A connection beyond the limit is told so, and costs nothing more.
func (s *Server) Serve(ctx context.Context, l *quicnet.Listener) error {
	defer l.Close() //nolint:errcheck // the process is leaving; the accept error is the one that counts
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := l.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		c := &connection{server: s, conn: conn, number: s.connections.Add(1), since: time.Now()}
		c.watch = quicnet.NewWatch(conn, s.cfg.ClientIdle, c.lost)
		if !s.admit(c) {
			s.log.Warn("client refused: too many connections", zap.Int("limit", s.cfg.MaxConnections),
				zap.Stringer("address", conn.RemoteAddr()), telemetry.From(conn.RemoteAddr().String()))
			_ = conn.CloseWithError(wire.QUICRefused, string(wire.CodeLimit)+": the director serves as many connections as it may")
			continue
		}
		running.Go(func() {
			defer s.dismiss(c)
			c.serve(ctx)
		})
	}
}

// admit counts a connection in, unless there are as many as there may be.
func (s *Server) admit(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.cfg.MaxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// dismiss forgets a connection that has ended.
func (s *Server) dismiss(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Open returns how many connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Snapshot is a connection as it is shown to people and programs.
type Snapshot struct {
	ConnectionID string             `json:"connection_id"`
	ODCID        string             `json:"odcid"`
	Exporter     string             `json:"exporter"`
	Client       string             `json:"client"`
	Address      string             `json:"address"`
	Since        time.Time          `json:"since"`
	Streams      []session.Snapshot `json:"streams"`
}

// Connections returns what is connected now, the oldest first. ODCID and exporter are read anew from each connection:
// so they prove that it is still the very same one.
func (s *Server) Connections() []Snapshot {
	s.mu.Lock()
	conns := make([]*connection, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *connection) int { return cmp.Compare(a.number, b.number) })
	all := make([]Snapshot, 0, len(conns))
	for _, c := range conns {
		if snapshot, ok := c.snapshot(); ok {
			all = append(all, snapshot)
		}
	}
	return all
}
