package native

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/peer"
	"github.com/connswap/connswap/shared/wire"
)

// What clients make a director hold besides prompts and text, in bytes.
const (
	connectionBytes = 64 << 10 // measured: 58 KB
	streamBytes     = 16 << 10 // its goroutines, its state and what QUIC has of it
)

const (
	// roomEvery is how often it is looked whether there is little room.
	roomEvery = time.Second
	// idleShort is how long a connection may have no stream while there is little room.
	idleShort = 10 * time.Second
	// atOnce is how many connections or streams are ended at once for that, or an eighth of those that could be.
	atOnce = 16
)

// holderOf says who a client is where things are divided: the name in its certificate, else its address.
func holderOf(conn *quic.Conn) string {
	if name := identity.PeerName(conn.ConnectionState().TLS); name != "" {
		return "certificate " + name
	}
	return peer.Name(peer.Of(conn.RemoteAddr()))
}

// makeRoom gives the room that is taken, and not used, to others when there is little of it; until ctx ends. stop waits
// for that.
func (s *Server) makeRoom(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(roomEvery)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			if s.shares.Short(shares.Connections) {
				s.endIdle()
			}
			for _, kind := range []shares.Kind{shares.Streams, shares.Bytes} {
				if s.shares.Short(kind) {
					s.endUnread(kind)
				}
			}
		}
	}()
	return func() { <-done }
}

// endIdle ends connections that have had no stream for a while, of who has most of them.
func (s *Server) endIdle() {
	for _, c := range idleOfWhoHasMost(s.shares.Most(shares.Connections), s.all(), idleShort) {
		_ = c.conn.CloseWithError(wire.QUICRefused, string(wire.CodeLimit)+
			": there is little room for connections, and this one has had no stream for a while")
	}
}

// endUnread ends streams that nobody reads, of who has most: those that run longest.
func (s *Server) endUnread(kind shares.Kind) {
	for _, h := range s.shares.Most(kind) {
		unread := s.sessions.Unread(h.Name())
		for _, stream := range unread[:min(len(unread), len(unread)/8+atOnce)] {
			stream.Yield()
		}
		if len(unread) > 0 {
			return
		}
	}
}

// idleOfWhoHasMost returns some of the connections that have had no stream for so long at least, among those of the first holder who
// has any: those that have had none longest.
func idleOfWhoHasMost(most []*shares.Holder, all []*carrier, least time.Duration) []*carrier {
	byHolder := map[*shares.Holder][]*carrier{}
	been := map[*carrier]time.Duration{}
	for _, c := range all {
		if d := c.idle(); d >= least {
			been[c] = d
			byHolder[c.holder] = append(byHolder[c.holder], c)
		}
	}
	for _, h := range most {
		if some := byHolder[h]; len(some) > 0 {
			slices.SortFunc(some, func(a, b *carrier) int { return cmp.Compare(been[b], been[a]) })
			return some[:min(len(some), len(some)/8+atOnce)]
		}
	}
	return nil
}
