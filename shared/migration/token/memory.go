package token

import (
	"maps"
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// memoryLimit bounds what is remembered of each kind: over 2,000 tokens a second, all with the longest expiry.
const memoryLimit = 1 << 16

// revokedFor is how long a revocation is remembered: longer than any token counts, even one of a director whose
// clock is ahead.
const revokedFor = 2 * MaxTTL

// memory is what a Verifier knows about tokens that it took or that were revoked. It forgets nothing that matters
// yet: when full it takes no more. It belongs to the Verifier, and is locked by it.
type memory struct {
	limit   int
	used    map[mark]note
	epochs  map[line]note // the highest epoch of accepted tokens, health checks aside; never more than used has
	revoked map[owned]note
	lost    time.Time // until then there may be revocations that found no place
	swept   time.Time
}

// owned is a session and the director that numbers it.
type owned struct {
	director string
	session  uint64
}

// mark stands for a token. The director is in it so that none can use up the ids of another.
type mark struct {
	director string
	id       [IDSize]byte
}

// line is what epochs are counted along.
type line struct {
	owned
	purpose wirepb.Purpose
}

// note is remembered for a while.
type note struct {
	epoch uint64
	until time.Time // with monotonic clock: setting the clock neither prolongs nor ends it
}

func newMemory() memory {
	return memory{limit: memoryLimit, used: map[mark]note{}, epochs: map[line]note{}, revoked: map[owned]note{}}
}

func ownedBy(t *wirepb.Token) owned { return owned{t.GetDirector(), t.GetSession()} }
func lineOf(t *wirepb.Token) line   { return line{ownedBy(t), t.GetPurpose()} }

func markOf(t *wirepb.Token) mark {
	m := mark{director: t.GetDirector()}
	copy(m.id[:], t.GetId())
	return m
}

// sweep forgets what has had its time, once a second.
func (m *memory) sweep(now time.Time) {
	if now.Sub(m.swept) < time.Second {
		return
	}
	m.swept = now
	forget(m.used, now)
	forget(m.epochs, now)
	forget(m.revoked, now)
}

func forget[K comparable](notes map[K]note, now time.Time) {
	maps.DeleteFunc(notes, func(_ K, n note) bool { return !n.until.After(now) })
}

// revoke remembers a revocation. Where it finds no place no token is taken until it would have been forgotten.
func (m *memory) revoke(session owned, epoch uint64, now time.Time) {
	m.sweep(now)
	until := now.Add(revokedFor)
	before, ok := m.revoked[session]
	if !ok && len(m.revoked) >= m.limit {
		m.lost = until
		return
	}
	m.revoked[session] = note{max(epoch, before.epoch), until}
}

func (m *memory) inOrder(token *wirepb.Token, want Want) *wire.Error {
	from, to, highest := token.GetFromEpoch(), token.GetToEpoch(), m.epochs[lineOf(token)].epoch
	switch {
	case ofSession(token) && from >= to:
		return wire.Errorf(wire.CodeTokenEpoch, "the token leads from epoch %d to %d", from, to)
	case want.Epoch != 0 && to != want.Epoch:
		return wire.Errorf(wire.CodeTokenEpoch, "the token leads to epoch %d, not %d", to, want.Epoch)
	case to < highest:
		return wire.Errorf(wire.CodeTokenEpoch, "the token leads to epoch %d, the session is in %d", to, highest)
	}
	return nil
}

func (m *memory) stands(token *wirepb.Token, now time.Time) *wire.Error {
	if n, ok := m.revoked[ownedBy(token)]; ok && token.GetToEpoch() <= n.epoch {
		return wire.Errorf(wire.CodeTokenRevoked, "the tokens of session %d up to epoch %d are revoked, this one leads to %d",
			token.GetSession(), n.epoch, token.GetToEpoch())
	}
	if m.lost.After(now) {
		return wire.Errorf(wire.CodeTokenRate, "more than %d sessions were revoked: this one may be among them", m.limit)
	}
	return nil
}

func (m *memory) unused(token *wirepb.Token, want Want) *wire.Error {
	if _, ok := m.used[markOf(token)]; ok && !want.Again {
		return wire.Errorf(wire.CodeTokenReplayed, "the token for session %d and epoch %d was used before",
			token.GetSession(), token.GetToEpoch())
	}
	return nil
}

// use remembers the token for a bit longer than it counts.
func (m *memory) use(token *wirepb.Token, now time.Time) *wire.Error {
	until := now.Add(time.UnixMilli(token.GetExpiresUnixMs()).Sub(now) + skew)
	if !until.After(now) {
		return nil // an old one, let in again: nobody can use it otherwise
	}
	if _, ok := m.used[markOf(token)]; !ok && len(m.used) >= m.limit {
		return wire.Errorf(wire.CodeTokenRate, "%d tokens were used lately and may not be forgotten yet", m.limit)
	}
	m.used[markOf(token)] = note{until: until}
	if before := m.epochs[lineOf(token)]; ofSession(token) {
		m.epochs[lineOf(token)] = note{token.GetToEpoch(), later(before.until, until)}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
