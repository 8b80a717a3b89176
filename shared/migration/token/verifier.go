package token

import (
	"cmp"
	"crypto/ed25519"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Want says what a token is needed for.
type Want struct {
	Purpose        wirepb.Purpose
	Director       string // instance; empty means any whose keys are known
	Session        uint64 // 0 means any
	Source, Target string // empty means any
	Epoch          uint64 // to which the token leads; 0 means any
	// Again says that this very token opened a transfer which is not over and was interrupted: then it counts
	// although it was used and may have expired. Whoever sets it ends transfers when their session is revoked; a
	// Verifier remembers revocations only for as long as a new transfer could be opened.
	Again bool
}

// Verifier checks the tokens that a node is shown, and remembers the ones it took. One serves the whole node,
// whatever number of directors it has. It is safe for concurrent use.
type Verifier struct {
	mu       sync.Mutex          // of the following
	keys     map[string][]signer // by director
	memory   memory
	refused  map[wire.Code]uint64
	accepted uint64
}

// signer is a key of a director.
type signer struct {
	director string
	id       string
	public   ed25519.PublicKey
}

// NewVerifier returns a Verifier that knows no keys yet.
func NewVerifier() *Verifier {
	return &Verifier{keys: map[string][]signer{}, memory: newMemory(), refused: map[wire.Code]uint64{}}
}

// SetKeys replaces the keys of a director; without any, none of its tokens counts. An error means that the keys
// were not used and the ones from before still count; it is a *wire.Error with wire.CodeProtocol.
func (v *Verifier) SetKeys(director string, keys *wirepb.TokenKeys) error {
	if len(keys.GetKeys()) > 2 {
		return wire.Errorf(wire.CodeProtocol, "%d token keys: there are two at most", len(keys.GetKeys()))
	}
	var signers []signer
	for _, k := range keys.GetKeys() {
		if len(k.GetId()) != keyIDSize || len(k.GetPublicKey()) != ed25519.PublicKeySize {
			return wire.Errorf(wire.CodeProtocol, "token key of %d bytes with an id of %d bytes: it has %d and %d",
				len(k.GetPublicKey()), len(k.GetId()), ed25519.PublicKeySize, keyIDSize)
		}
		signers = append(signers, signer{director, string(k.GetId()), slices.Clone(k.GetPublicKey())})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys[director] = signers
	return nil
}

// Forget forgets the keys of a director that has gone. What was used or revoked is remembered: should the director
// come back, its old tokens are no better than before.
func (v *Verifier) Forget(director string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.keys, director)
}

// Revoke makes the tokens of a session useless that lead to this epoch or to an earlier one.
func (v *Verifier) Revoke(director string, session, epoch uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.memory.revoke(owned{director, session}, epoch, time.Now())
}

// Counts is what became of the tokens that a Verifier was shown.
type Counts struct {
	Accepted uint64               `json:"accepted"`
	Refused  map[wire.Code]uint64 `json:"refused"` // by the reason
}

// Counts returns the counts of this moment.
func (v *Verifier) Counts() Counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Counts{Accepted: v.accepted, Refused: maps.Clone(v.refused)}
}

// Verify returns what a token says if it is good for what is wanted, and from then on it has been used. Otherwise
// the error is a *wire.Error with one of the codes CodeToken…, and the token is as good as before.
func (v *Verifier) Verify(signed *wirepb.SignedToken, want Want) (*wirepb.Token, error) {
	token, refusal := v.open(signed)
	v.mu.Lock()
	defer v.mu.Unlock()
	if refusal == nil {
		refusal = v.accept(token, want, time.Now())
	}
	if refusal != nil {
		v.refused[refusal.Code]++
		return nil, refusal
	}
	v.accepted++
	return token, nil
}

// open returns the token that a director's key vouches for. It has not been compared with anything yet.
func (v *Verifier) open(signed *wirepb.SignedToken) (*wirepb.Token, *wire.Error) {
	raw, id, signature := signed.GetToken(), signed.GetKeyId(), signed.GetSignature()
	switch {
	case signed == nil:
		return nil, wire.Errorf(wire.CodeTokenMissing, "a migration token is needed, there is none")
	case len(raw) > maxToken || len(id) != keyIDSize || len(signature) != ed25519.SignatureSize:
		return nil, wire.Errorf(wire.CodeTokenTampered, "token, key id and signature have %d, %d and %d bytes, not up to %d, %d and %d",
			len(raw), len(id), len(signature), maxToken, keyIDSize, ed25519.SignatureSize)
	}
	signers := v.signers(id)
	if len(signers) == 0 {
		return nil, wire.Errorf(wire.CodeTokenKey, "no director that is known here signs with key %x", id)
	}
	signers = slices.DeleteFunc(signers, func(s signer) bool { return !ed25519.Verify(s.public, raw, signature) })
	if len(signers) == 0 {
		return nil, wire.Errorf(wire.CodeTokenTampered, "the signature is not that of the token with key %x", id)
	}
	return decode(raw, signers)
}

// signers returns who signs with the key of this id. Key ids are meant to be unique, but each director chooses its
// own: none may get in another's way.
func (v *Verifier) signers(id []byte) []signer {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []signer
	for _, signers := range v.keys {
		for _, s := range signers {
			if s.id == string(id) {
				all = append(all, s)
			}
		}
	}
	return all
}

// decode decodes what was signed by one of the signers. A director speaks for itself only.
func decode(raw []byte, signers []signer) (*wirepb.Token, *wire.Error) {
	token := &wirepb.Token{}
	if err := proto.Unmarshal(raw, token); err != nil {
		return nil, wire.Errorf(wire.CodeTokenTampered, "what is signed is no token")
	}
	if err := wellFormed(token); err != nil {
		return nil, wire.Errorf(wire.CodeTokenTampered, "what is signed is no token: %v", err)
	}
	if !slices.ContainsFunc(signers, func(s signer) bool { return s.director == token.GetDirector() }) {
		return nil, wire.Errorf(wire.CodeTokenKey, "director %.80q does not sign with this key", token.GetDirector())
	}
	return token, nil
}

// accept marks the token as used, or says what is wrong with it: of several reasons the first. v.mu is held.
func (v *Verifier) accept(token *wirepb.Token, want Want, now time.Time) *wire.Error {
	v.memory.sweep(now)
	refusal := cmp.Or(
		timely(token, want, now),
		fits(token, want),
		v.memory.inOrder(token, want),
		v.memory.stands(token, now),
		v.memory.unused(token, want),
	)
	if refusal != nil {
		return refusal
	}
	return v.memory.use(token, now)
}

func timely(token *wirepb.Token, want Want, now time.Time) *wire.Error {
	left := time.UnixMilli(token.GetExpiresUnixMs()).Sub(now)
	switch {
	case left <= 0 && !want.Again:
		return wire.Errorf(wire.CodeTokenExpired, "the token expired %s ago", -left.Round(time.Millisecond))
	case left > MaxTTL+skew:
		return wire.Errorf(wire.CodeTokenExpired, "the token expires in %s, allowed are %s; do the clocks agree?",
			left.Round(time.Millisecond), MaxTTL)
	}
	return nil
}

func fits(token *wirepb.Token, want Want) *wire.Error {
	const is = "the token is for %s %.80q, not %.80q"
	switch {
	case token.GetPurpose() != want.Purpose:
		return wire.Errorf(wire.CodeTokenPurpose, "the token is for %s, not %s", token.GetPurpose(), want.Purpose)
	case want.Director != "" && token.GetDirector() != want.Director:
		return wire.Errorf(wire.CodeTokenSession, is, "a session of director", token.GetDirector(), want.Director)
	case want.Session != 0 && token.GetSession() != want.Session:
		return wire.Errorf(wire.CodeTokenSession, "the token is for session %d, not %d", token.GetSession(), want.Session)
	case want.Source != "" && token.GetSource() != want.Source:
		return wire.Errorf(wire.CodeTokenTarget, is, "source", token.GetSource(), want.Source)
	case want.Target != "" && token.GetTarget() != want.Target:
		return wire.Errorf(wire.CodeTokenTarget, is, "target", token.GetTarget(), want.Target)
	}
	return nil
}
