package token

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// awaitTimeout is how long a secret that is not known yet is waited for: links have no common order, so it may be shown
// before the director's word arrives on a link that has lost a packet.
const awaitTimeout = 2 * time.Second

// Want says what a token is needed for.
type Want struct {
	Purpose        wirepb.Purpose
	Director       string // instance; empty means any
	Session        uint64 // 0 means any
	Source, Target string // empty means any
	Epoch          uint64 // to which the token leads; 0 means any
}

// Holder is a node that grants what tokens allow. It has one table of grants for each link of a director. It is safe for
// concurrent use.
type Holder struct {
	mu       sync.Mutex // of the following, and of all tables
	tables   []*Grants
	allowed  chan struct{} // closed, and replaced, when a table gets a token
	accepted uint64
	refused  map[wire.Code]uint64
}

// NewHolder returns a Holder without directors.
func NewHolder() *Holder {
	return &Holder{allowed: make(chan struct{}), refused: map[wire.Code]uint64{}}
}

// Join returns an empty table for what a director allows. Give it back with Leave.
func (h *Holder) Join(director string) *Grants {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := newGrants(h, director)
	h.tables = append(h.tables, g)
	return g
}

// Leave forgets a table: its director's link or process is gone, and nothing that it allowed counts any more.
func (h *Holder) Leave(g *Grants) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tables = slices.DeleteFunc(h.tables, func(other *Grants) bool { return other == g })
}

// Show returns what the token of a secret says if it is good for what is wanted, and from then on it has been used.
// Otherwise the error is a *wire.Error with one of the codes CodeToken…, and the token is as good as before.
func (h *Holder) Show(secret []byte, want Want) (*wirepb.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	token, refusal := h.show(secret, want, time.Now())
	if refusal != nil {
		h.refused[refusal.Code]++
		return nil, refusal
	}
	h.accepted++
	return token, nil
}

// show looks the secret up. A secret that several directors know, which takes a thief, is judged by each one's table, and
// good if one of them takes it: none can spoil another's. h.mu is held.
func (h *Holder) show(secret []byte, want Want, now time.Time) (*wirepb.Token, *wire.Error) {
	switch len(secret) {
	case 0:
		return nil, wire.Errorf(wire.CodeTokenMissing, "a migration token is needed, there is none")
	case SecretSize:
	default:
		return nil, wire.Errorf(wire.CodeTokenTampered, "the secret of a token has %d bytes, not %d", len(secret), SecretSize)
	}
	refusal := wire.Errorf(wire.CodeTokenUnknown, "no director has allowed this token here, or it is long over")
	for _, g := range h.tables {
		g.sweep(now)
		if known := g.find(secret); known != nil {
			if refusal = g.consume(known, want, now); refusal == nil {
				return known.token, nil
			}
		} else if g.full.After(now) && refusal.Code == wire.CodeTokenUnknown {
			refusal = wire.Errorf(wire.CodeTokenRate, "more than %d tokens were allowed at once: this may be one of them", g.limit)
		}
	}
	return nil, refusal
}

// Await returns when the secret is known, or has been waited for long enough, or ctx ends.
func (h *Holder) Await(ctx context.Context, secret []byte) {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	for len(secret) == SecretSize {
		h.mu.Lock()
		known, more := slices.ContainsFunc(h.tables, func(g *Grants) bool { return g.find(secret) != nil }), h.allowed
		h.mu.Unlock()
		if known {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// Counts is what became of the tokens that a Holder was shown.
type Counts struct {
	Accepted uint64               `json:"accepted"`
	Refused  map[wire.Code]uint64 `json:"refused"` // by the reason
}

// Counts returns the counts of this moment.
func (h *Holder) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Counts{Accepted: h.accepted, Refused: maps.Clone(h.refused)}
}
