package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// settle is how long a new key is known before it signs. A token can reach the node that checks it by another way
// than the keys do, and be there first.
const settle = 5 * time.Second

// Config says how an Issuer makes tokens.
type Config struct {
	Director string        // the director's instance
	TTL      time.Duration // how long a token counts; MaxTTL if it is 0 or more than that
	KeyLife  time.Duration // age at which Rotate replaces a key; at least so long that the tokens of the old one run out
	Rate     int           // tokens per second for one target, and as many at once; at least 1
}

// Claims are what a token says, but for its id, its director and its expiry.
type Claims struct {
	Purpose            wirepb.Purpose
	Session            uint64 // 0 only for a health check
	ConnectionID       string
	StreamID           uint64
	Source, Target     string // label of a worker, or id of a director; there is always a target
	FromEpoch, ToEpoch uint64 // From is the lower one; both are 0 for a health check
}

// Issuer makes the tokens of one director. It is safe for concurrent use.
type Issuer struct {
	cfg  Config
	pace pace

	mu       sync.Mutex // of the following
	current  *key
	previous *key // nil before the first rotation
}

// key signs tokens. It never changes.
type key struct {
	id      []byte
	private ed25519.PrivateKey
	since   time.Time
}

func newKey() *key {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	return keyOf(seed)
}

func keyOf(seed []byte) *key {
	private := ed25519.NewKeyFromSeed(seed)
	id := sha256.Sum256(private[ed25519.SeedSize:])
	return &key{id: id[:keyIDSize], private: private, since: time.Now()}
}

func (k *key) sign(token []byte) *wirepb.SignedToken {
	return &wirepb.SignedToken{Token: token, KeyId: k.id, Signature: ed25519.Sign(k.private, token)}
}

func (k *key) proto() *wirepb.TokenKeys_Key {
	return &wirepb.TokenKeys_Key{Id: k.id, PublicKey: k.private[ed25519.SeedSize:]}
}

// NewIssuer returns an Issuer with a key of its own.
func NewIssuer(cfg Config) *Issuer {
	if cfg.TTL <= 0 || cfg.TTL > MaxTTL {
		cfg.TTL = MaxTTL
	}
	cfg.KeyLife = max(cfg.KeyLife, cfg.TTL+settle)
	return &Issuer{cfg: cfg, pace: newPace(cfg.Rate), current: newKey()}
}

// Issue returns a new token and its id, which is a secret of those who get the token. Over the target's rate the
// error is a *wire.Error with wire.CodeTokenRate; any other error means that no verifier would take such a token.
func (i *Issuer) Issue(claims Claims) (*wirepb.SignedToken, []byte, error) {
	token := i.token(claims)
	raw, err := encode(token)
	if err != nil {
		return nil, nil, fmt.Errorf("migration token for %.80q: %w", claims.Target, err)
	}
	if !i.pace.allow(claims.Target) {
		return nil, nil, wire.Errorf(wire.CodeTokenRate,
			"worker %s has had its %d migration tokens of this second", claims.Target, i.cfg.Rate)
	}
	return i.signing().sign(raw), token.GetId(), nil
}

func (i *Issuer) token(claims Claims) *wirepb.Token {
	id := make([]byte, IDSize)
	_, _ = rand.Read(id) // never fails
	return &wirepb.Token{
		Id:            id,
		Purpose:       claims.Purpose,
		Director:      i.cfg.Director,
		Session:       claims.Session,
		ConnectionId:  claims.ConnectionID,
		StreamId:      claims.StreamID,
		Source:        claims.Source,
		Target:        claims.Target,
		FromEpoch:     claims.FromEpoch,
		ToEpoch:       claims.ToEpoch,
		ExpiresUnixMs: time.Now().Add(i.cfg.TTL).UnixMilli(),
	}
}

// encode returns the bytes to sign, unless nobody would take such a token.
func encode(t *wirepb.Token) ([]byte, error) {
	if err := wellFormed(t); err != nil {
		return nil, err
	}
	if from, to := t.GetFromEpoch(), t.GetToEpoch(); ofSession(t) && from >= to {
		return nil, fmt.Errorf("it leads from epoch %d to %d", from, to)
	}
	raw, err := proto.Marshal(t)
	if err == nil && len(raw) > maxToken {
		err = fmt.Errorf("it has %d bytes, allowed are %d", len(raw), maxToken)
	}
	return raw, err
}

// signing returns the key to sign with.
func (i *Issuer) signing() *key {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.previous != nil && time.Since(i.current.since) < settle {
		return i.previous
	}
	return i.current
}

// Keys returns what tokens have to be checked with: the current key and, for one KeyLife after it was replaced,
// the one before it.
func (i *Issuer) Keys() *wirepb.TokenKeys {
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := &wirepb.TokenKeys{Keys: []*wirepb.TokenKeys_Key{i.current.proto()}}
	if i.previous != nil && time.Since(i.current.since) < i.cfg.KeyLife {
		keys.Keys = append(keys.Keys, i.previous.proto())
	}
	return keys
}

// Rotate replaces the current key if it is as old as KeyLife, and reports whether it did: then all verifiers need
// Keys. The new key signs a few seconds later, when they have it.
func (i *Issuer) Rotate() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Since(i.current.since) < i.cfg.KeyLife {
		return false
	}
	i.previous, i.current = i.current, newKey()
	return true
}
