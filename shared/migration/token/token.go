// Package token makes migration tokens and checks them. A token allows one thing, once, to one node, for a short
// time; its director signs it, and whoever is asked for something knows that director's keys. Each way to misuse
// one is refused with its own wire.Code, and counted.
package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// MaxTTL is the longest that a token counts.
const MaxTTL = 30 * time.Second

// skew is how far the clocks of two nodes may be apart. Nothing counts longer because of it: a token that has
// expired by the verifier's clock has expired.
const skew = 5 * time.Second

// Sizes in bytes.
const (
	IDSize    = 32
	keyIDSize = 8
	maxToken  = 2 << 10 // a Token, serialized; names in it have 253 each at most
)

// wellFormed says what is wrong with a token that nobody may make, whatever it is used for.
func wellFormed(t *wirepb.Token) error {
	purpose := t.GetPurpose()
	switch {
	case len(t.GetId()) != IDSize:
		return fmt.Errorf("its id has %d bytes, not %d", len(t.GetId()), IDSize)
	case purpose <= wirepb.Purpose_PURPOSE_UNSPECIFIED || purpose > wirepb.Purpose_PURPOSE_HEALTH_CHECK:
		return fmt.Errorf("there is no purpose %d", purpose)
	case t.GetDirector() == "":
		return errors.New("it names no director")
	case t.GetTarget() == "":
		return errors.New("it names no target")
	case t.GetSession() == 0 && ofSession(t):
		return errors.New("it names no session")
	}
	return nil
}

// ofSession reports whether t is about a session, and thus about epochs. A health check is about a node.
func ofSession(t *wirepb.Token) bool { return t.GetPurpose() != wirepb.Purpose_PURPOSE_HEALTH_CHECK }
