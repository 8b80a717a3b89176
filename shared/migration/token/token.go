// Package token makes migration tokens, and keeps what holders of them know. A token is a capability: its secret allows
// one thing, once, to one node, for a short time. The director gives the token to the node that has what it allows to get,
// the holder, and to whoever may ask for it, on links that are authenticated at both ends. Each way to misuse one is
// refused with its own wire.Code, and counted.
package token

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// MaxTTL is the longest that a token counts.
const MaxTTL = 30 * time.Second

// skew is how far the clocks of two nodes may be apart, and for how long a token that has expired is still known as such.
// Nothing counts longer because of it: a token that has expired by the holder's clock has expired.
const skew = 5 * time.Second

// Sizes in bytes.
const (
	SecretSize = 32
	maxToken   = 2 << 10 // a Token, serialized; names in it have 253 each at most
)

// check says what is wrong with a token that no director makes.
func check(t *wirepb.Token) error {
	from, to := t.GetFromEpoch(), t.GetToEpoch()
	switch purpose := t.GetPurpose(); {
	case len(t.GetSecret()) != SecretSize:
		return fmt.Errorf("its secret has %d bytes, not %d", len(t.GetSecret()), SecretSize)
	case wirepb.Purpose_name[int32(purpose)] == "" || purpose == wirepb.Purpose_PURPOSE_UNSPECIFIED:
		return fmt.Errorf("there is no purpose %d", purpose)
	case t.GetDirector() == "":
		return errors.New("it names no director")
	case t.GetTarget() == "":
		return errors.New("it names no target")
	case t.GetSession() == 0:
		return errors.New("it names no session")
	case from >= to:
		return fmt.Errorf("it leads from epoch %d to %d", from, to)
	}
	if size := proto.Size(t); size > maxToken {
		return fmt.Errorf("it has %d bytes, allowed are %d", size, maxToken)
	}
	return nil
}
