package token

import (
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config says how an Issuer makes tokens.
type Config struct {
	Director string        // the director's instance
	TTL      time.Duration // how long a token counts; MaxTTL if it is 0 or more than that
	Rate     int           // tokens per second for one target, and as many at once; at least 1
}

// Claims are what a token says, but for its secret, its director and its expiry.
type Claims struct {
	Purpose            wirepb.Purpose
	Session            uint64
	ConnectionID       string
	StreamID           uint64
	Source, Target     string // label of a worker, or id of a director; there is always a target
	FromEpoch, ToEpoch uint64 // From is the lower one
}

// Issuer makes the tokens of one director. It is safe for concurrent use.
type Issuer struct {
	cfg    Config
	limits targetLimits
}

// NewIssuer returns an Issuer.
func NewIssuer(cfg Config) *Issuer {
	if cfg.TTL <= 0 || cfg.TTL > MaxTTL {
		cfg.TTL = MaxTTL
	}
	return &Issuer{cfg: cfg, limits: newTargetLimits(cfg.Rate)}
}

// Issue returns a new token, for its holder and for whoever may use it. Over the target's rate the error is a *wire.Error
// with wire.CodeTokenRate; any other error means that no holder would take such a token.
func (i *Issuer) Issue(claims Claims) (*wirepb.Token, error) {
	token := i.token(claims)
	_, err := proto.Marshal(token) // which names may not let through
	if err == nil {
		err = check(token)
	}
	if err != nil {
		return nil, fmt.Errorf("migration token for %.80q: %w", claims.Target, err)
	}
	if !i.limits.allow(claims.Target) {
		return nil, wire.Errorf(wire.CodeTokenRate,
			"worker %s has had its %d migration tokens of this second", claims.Target, i.cfg.Rate)
	}
	return token, nil
}

func (i *Issuer) token(claims Claims) *wirepb.Token {
	secret := make([]byte, SecretSize)
	_, _ = rand.Read(secret) // never fails
	return &wirepb.Token{
		Secret:        secret,
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
