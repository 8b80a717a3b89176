package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"maps"
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// grantsLimit bounds the tokens that one director's table knows, and the sessions: over 1,800 tokens a second, all with
// the longest expiry.
const grantsLimit = 1 << 16

// revokedFor is how long a revocation is remembered: longer than any token counts, even one of a director whose clock is
// ahead.
const revokedFor = 2 * MaxTTL

// Grants is what one director allows, for as long as its link lasts. Tokens that were used, were revoked or have expired
// stay for a little longer than they count, so that each misuse is refused by its name. A full table forgets nothing that
// matters yet: it takes no more. It is safe for concurrent use; the holder's mu guards all of it.
type Grants struct {
	holder   *Holder
	director string
	limit    int

	grants   map[digest]*grant
	sessions map[uint64]*history
	full     time.Time // until then there may be tokens that found no place
	lost     time.Time // until then there may be revocations that found none
	swept    time.Time
}

// digest is what a secret is looked up by: how long that takes says nothing about secrets that are known.
type digest [sha256.Size]byte

// grant is a token, good or not any more.
type grant struct {
	token *wirepb.Token
	used  bool
	until time.Time // with monotonic clock: setting the clock neither prolongs nor ends it
}

// history is what tokens of a session have to follow.
type history struct {
	highest map[wirepb.Purpose]uint64 // epoch of the tokens that were used
	revoked uint64                    // tokens that lead to this epoch or to an earlier one
	until   time.Time
}

func newGrants(h *Holder, director string) *Grants {
	return &Grants{
		holder: h, director: director, limit: grantsLimit, grants: map[digest]*grant{}, sessions: map[uint64]*history{},
	}
}

// Allow takes a token from the director, and grants what it says to whoever shows its secret. The error, a *wire.Error,
// means that no director makes such a token, or not this one.
func (g *Grants) Allow(t *wirepb.Token) error {
	if err := check(t); err != nil {
		return wire.Errorf(wire.CodeProtocol, "what is allowed is no token: %v", err)
	}
	if t.GetDirector() != g.director {
		return wire.Errorf(wire.CodeProtocol, "a token of director %.80q, from %.80q", t.GetDirector(), g.director)
	}
	h := g.holder
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	g.sweep(now)
	remaining := min(max(0, time.UnixMilli(t.GetExpiresUnixMs()).Sub(now)), MaxTTL)
	until := now.Add(remaining + skew)
	key := digest(sha256.Sum256(t.GetSecret()))
	switch {
	case g.grants[key] != nil: // allowed before: used once is used for good
	case len(g.grants) >= g.limit:
		g.full = later(g.full, until)
	default:
		g.grants[key] = &grant{token: t, until: until}
		close(h.allowed)
		h.allowed = make(chan struct{})
	}
	return nil
}

// Revoke makes the tokens of a session useless that lead to this epoch or to an earlier one. Where that finds no place no
// token is good until it would have been forgotten.
func (g *Grants) Revoke(session, epoch uint64) {
	g.holder.mu.Lock()
	defer g.holder.mu.Unlock()
	now := time.Now()
	g.sweep(now)
	until := now.Add(revokedFor)
	if h := g.history(session, until); h != nil {
		h.revoked = max(h.revoked, epoch)
		return
	}
	g.lost = until
}

// history returns what is known of a session, from now on until then, or nil if there is no place for it.
func (g *Grants) history(session uint64, until time.Time) *history {
	h := g.sessions[session]
	if h == nil {
		if len(g.sessions) >= g.limit {
			return nil
		}
		h = &history{highest: map[wirepb.Purpose]uint64{}}
		g.sessions[session] = h
	}
	h.until = later(h.until, until)
	return h
}

// find returns the grant of a secret, or nil.
func (g *Grants) find(secret []byte) *grant {
	known := g.grants[sha256.Sum256(secret)]
	if known == nil || subtle.ConstantTimeCompare(known.token.GetSecret(), secret) != 1 {
		return nil
	}
	return known
}

// sweep forgets what has had its time, once a second.
func (g *Grants) sweep(now time.Time) {
	if now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	maps.DeleteFunc(g.grants, func(_ digest, known *grant) bool { return !known.until.After(now) })
	maps.DeleteFunc(g.sessions, func(_ uint64, h *history) bool { return !h.until.After(now) })
}

// consume uses a token up, or says why not.
func (g *Grants) consume(known *grant, want Want, now time.Time) *wire.Error {
	if refusal := g.judge(known, want, now); refusal != nil {
		return refusal
	}
	t := known.token
	h := g.history(t.GetSession(), known.until)
	if h == nil {
		return wire.Errorf(wire.CodeTokenRate, "tokens of %d sessions were used lately and may not be forgotten yet", g.limit)
	}
	known.used = true
	h.highest[t.GetPurpose()] = t.GetToEpoch()
	return nil
}

// judge says what is wrong with a token, of several reasons the first, or nothing.
func (g *Grants) judge(known *grant, want Want, now time.Time) *wire.Error {
	t := known.token
	id, to, remaining := t.GetSession(), t.GetToEpoch(), time.UnixMilli(t.GetExpiresUnixMs()).Sub(now)
	h := g.sessions[id]
	if h == nil {
		h = &history{}
	}
	const is = "the token is for %s %.80q, not %.80q"
	switch highest := h.highest[t.GetPurpose()]; {
	case remaining <= 0:
		return wire.Errorf(wire.CodeTokenExpired, "the token expired %s ago", -remaining.Round(time.Millisecond))
	case remaining > MaxTTL+skew:
		return wire.Errorf(wire.CodeTokenExpired, "the token expires in %s, allowed are %s; do the clocks agree?",
			remaining.Round(time.Millisecond), MaxTTL)
	case t.GetPurpose() != want.Purpose:
		return wire.Errorf(wire.CodeTokenPurpose, "the token is for %s, not %s", t.GetPurpose(), want.Purpose)
	case want.Director != "" && g.director != want.Director:
		return wire.Errorf(wire.CodeTokenSession, is, "a session of director", g.director, want.Director)
	case want.Session != 0 && id != want.Session:
		return wire.Errorf(wire.CodeTokenSession, "the token is for session %d, not %d", id, want.Session)
	case want.Source != "" && t.GetSource() != want.Source:
		return wire.Errorf(wire.CodeTokenTarget, is, "source", t.GetSource(), want.Source)
	case want.Target != "" && t.GetTarget() != want.Target:
		return wire.Errorf(wire.CodeTokenTarget, is, "target", t.GetTarget(), want.Target)
	case want.Epoch != 0 && to != want.Epoch:
		return wire.Errorf(wire.CodeTokenEpoch, "the token leads to epoch %d, not %d", to, want.Epoch)
	case to < highest:
		return wire.Errorf(wire.CodeTokenEpoch, "the token leads to epoch %d, the session is in %d", to, highest)
	case to <= h.revoked:
		return wire.Errorf(wire.CodeTokenRevoked, "the tokens of session %d up to epoch %d are revoked, this one leads to %d", id, h.revoked, to)
	case g.lost.After(now):
		return wire.Errorf(wire.CodeTokenRate, "more than %d sessions were revoked: this one may be among them", g.limit)
	case known.used:
		return wire.Errorf(wire.CodeTokenReplayed, "the token for session %d and epoch %d was used before", id, to)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
