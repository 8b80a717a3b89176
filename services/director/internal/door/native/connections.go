package native

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"maps"
	"slices"
	"sync"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// secretBytes is the length of what a client shows that comes back.
const secretBytes = 32

// connections are those of all clients that have greeted, also of clients that are lost and whose streams wait. It is
// safe for concurrent use. Its lock is taken while a connection's is held, never the other way round.
type connections struct {
	server *Server

	mu   sync.Mutex
	byID map[string]*connection
}

// open returns a new connection, carried by c, of a client that has shown a key.
func (s *connections) open(serving context.Context, running *sync.WaitGroup, c *carrier, hello *wirepb.ClientHello, key *keys.Key) (*connection, error) {
	k := &connection{
		server: s.server, id: "conn-" + identity.NewID(), client: wire.Name(hello.GetClient()),
		name: identity.PeerName(c.conn.ConnectionState().TLS), since: c.since, holder: s.server.shares.Join(key.Holder(c.holder.Name())),
		running: running, key: key, carrier: c, streams: map[uint64]*session.Session{},
	}
	k.ctx, k.cancel = context.WithCancelCause(serving)
	if hello.GetResumable() && s.server.cfg.ResumeWait > 0 {
		k.secret = make([]byte, secretBytes)
		_, _ = rand.Read(k.secret) // never fails
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.number = s.server.cfg.Numbers.Add(1)
	s.byID[k.id] = k
	return k, nil
}

// back returns the connection that a client comes back to, which c carries from now on; what did so before is closed.
func (s *connections) back(c *carrier, who *wirepb.Return, key *keys.Key) (*connection, error) {
	s.mu.Lock()
	k := s.byID[who.GetConnectionId()]
	s.mu.Unlock()
	unknown := wire.Errorf(wire.CodeResumeUnknown, "no connection %s waits here for its client", wire.Text(who.GetConnectionId()))
	switch {
	case k == nil || len(k.secret) == 0:
		return nil, unknown
	case len(who.GetSecret()) == 0:
		return nil, wire.Errorf(wire.CodeResumeSecret, "the secret of %s is missing", k.id)
	case subtle.ConstantTimeCompare(who.GetSecret(), k.secret) == 0:
		return nil, wire.Errorf(wire.CodeResumeSecret, "that is not the secret of %s", k.id)
	case identity.PeerName(c.conn.ConnectionState().TLS) != k.name:
		return nil, wire.Errorf(wire.CodeUnauthorized, "%s is that of a client with another certificate", k.id)
	case key.Name() != k.shown().Name():
		return nil, wire.Errorf(wire.CodeUnauthorized, "%s is that of a client with another key", k.id)
	}
	last, ok := k.take(c, key)
	if !ok {
		return nil, unknown
	}
	if last != nil {
		last.supersede()
	}
	return k, nil
}

// forget drops a connection that is over.
func (s *connections) forget(k *connection) {
	s.mu.Lock()
	_, known := s.byID[k.id]
	delete(s.byID, k.id)
	s.mu.Unlock()
	if known {
		k.cancel(nil)
		k.holder.Leave()
	}
}

// all returns the connections, the oldest first.
func (s *connections) all() []*connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.byID), func(a, b *connection) int { return cmp.Compare(a.number, b.number) })
}

// away reports whether there is a client that is lost and may come back for a stream.
func (s *connections) away() bool {
	return slices.ContainsFunc(s.all(), func(k *connection) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.carrier == nil && k.begun > 0
	})
}

// close ends all connections. None has a stream any more.
func (s *connections) close() {
	for _, k := range s.all() {
		k.close()
	}
}

// window is how far behind the newest one a stream's number may come that was not used yet.
const window = 1024

// numbers are those of a connection's streams so far: each is used once. They may come in any order, within a window. It
// is the anti-replay window of IPsec (RFC 6479).
type numbers struct {
	newest uint64
	used   [window / 64]uint64
}

// use reports whether a number is new, and takes note of it.
func (n *numbers) use(number uint64) bool {
	if number == 0 || n.newest >= window && number <= n.newest-window {
		return false
	}
	if number > n.newest {
		for i := range min(number-n.newest, window) {
			n.used[(number-i)%window/64] &^= 1 << ((number - i) % 64)
		}
		n.newest = number
	}
	word, bit := &n.used[number%window/64], uint64(1)<<(number%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}
