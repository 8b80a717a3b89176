// Package fault is the one dictionary of what goes wrong between a client and a director, for both of the client's packages:
// whatever QUIC, TLS, the network, or the director itself says becomes a wire.Code, for programs, and one sentence of what
// happened and what to change, for people. The error that it was made of stays in the chain.
package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/connswap/connswap/shared/wire"
)

// ErrClosed is in the error of whatever the caller itself has closed.
var ErrClosed = errors.New("closed by this side")

// coded gives a cause its Code. It reads as the Error, whose message has what matters of the cause.
type coded struct {
	err   *wire.Error
	cause error
}

func (c *coded) Error() string   { return c.err.Error() }
func (c *coded) Unwrap() []error { return []error{c.err, c.cause} }

// New returns an error with this Code and message, and with cause in its chain.
func New(code wire.Code, cause error, format string, args ...any) error {
	return &coded{wire.Errorf(code, format, args...), cause}
}

// Wrap gives err a Code, and a message of what failed and why.
func Wrap(code wire.Code, what string, err error) error { return New(code, err, "%s: %v", what, err) }

// Ended returns why a context did: the error of it, with its cause where that is another. A cause that says all, an
// [ErrClosed] or one with a Code, stands for itself.
func Ended(ctx context.Context) error {
	var known *wire.Error
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) || errors.Is(cause, ErrClosed) || errors.As(cause, &known) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
