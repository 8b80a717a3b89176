package quicnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/peer"
)

// Bounds on handshakes that have begun at a listener and are not complete. One costs some 50 KB.
const (
	// maxUnproved is how many may be open before a peer has to prove that it receives at the address that it sends
	// from, which takes it one round trip more (Retry, RFC 9000 §8.1.2) and costs the listener no memory.
	maxUnproved = 64
	// maxUnprovedPerAddress is the same for one address: who writes somebody else's address into his packets takes
	// no more than that from its owner, who can prove it.
	maxUnprovedPerAddress = 16
	// maxProved is how many may be open of peers that have proved their addresses.
	maxProved = 1024
	// maxProvedPerAddress is the same for one address. It is also at most what is left for all others.
	maxProvedPerAddress = 256
	// handshakeIdle is how long an unfinished handshake may be silent, unless the configuration says otherwise. quic-go
	// gives it up after twice that in any case.
	handshakeIdle = 2500 * time.Millisecond
)

// Handshakes counts those of one listener.
type Handshakes struct {
	Open    int    `json:"open"`    // begun, and not complete yet
	Retries uint64 `json:"retries"` // peers that were asked to prove their address, so far
	Refused uint64 `json:"refused"` // handshakes that were beyond a bound, so far
}

// handshakes bounds and counts the unfinished handshakes of a listener. Its unproved and prove are called by one goroutine
// of quic-go, one after the other.
type handshakes struct {
	mu       sync.Mutex
	unproved pending
	proved   pending
	retries  uint64
	refused  uint64
}

// pending are unfinished handshakes by the address that they come from.
type pending struct {
	all int
	of  map[netip.Prefix]int
}

func newHandshakes() *handshakes {
	return &handshakes{unproved: pending{of: map[netip.Prefix]int{}}, proved: pending{of: map[netip.Prefix]int{}}}
}

// suspicious reports whether a peer that has not proved its address has to.
func (h *handshakes) suspicious(addr net.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unproved.all < maxUnproved && h.unproved.of[peer.Of(addr)] < maxUnprovedPerAddress {
		return false
	}
	h.retries++
	return true
}

// errCrowded refuses a handshake: too many are open, all in all or of this address. The peer may try again.
var errCrowded = errors.New("too many unfinished handshakes")

// begin counts a handshake until its context ends, or finish is called with that.
func (h *handshakes) begin(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	from := peer.Of(client.RemoteAddr)
	h.mu.Lock()
	defer h.mu.Unlock()
	at := &h.unproved
	if client.AddrVerified {
		at = &h.proved
		// With that no number of addresses short of all places leaves nothing for one that has none yet.
		if of := at.of[from]; of >= maxProvedPerAddress || of >= maxProved-at.all {
			h.refused++
			return nil, errCrowded
		}
	}
	at.all++
	at.of[from]++
	ended := sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		at.all--
		if at.of[from]--; at.of[from] == 0 {
			delete(at.of, from)
		}
	})
	stop := context.AfterFunc(ctx, ended)
	return context.WithValue(ctx, handshakeKey{}, func() {
		stop()
		ended()
	}), nil
}

type handshakeKey struct{}

// finish says that the handshake of a connection is complete.
func (h *handshakes) finish(conn *quic.Conn) {
	if complete, ok := conn.Context().Value(handshakeKey{}).(func()); ok {
		complete()
	}
}

// Count returns the numbers as they are now.
func (h *handshakes) Count() Handshakes {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Handshakes{Open: h.unproved.all + h.proved.all, Retries: h.retries, Refused: h.refused}
}
