package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// coded gives a cause its Code. It reads as the Error, whose message has the cause's.
type coded struct {
	err   *wire.Error
	cause error
}

func (c *coded) Error() string   { return c.err.Error() }
func (c *coded) Unwrap() []error { return []error{c.err, c.cause} }

func wrap(code wire.Code, what string, err error) error {
	return &coded{wire.Errorf(code, "%s: %v", what, err), err}
}

// noApplicationProtocol is the TLS alert of a server that speaks none of the protocols offered (RFC 7301 §3.2),
// as QUIC carries it (RFC 9001 §4.8).
const noApplicationProtocol quic.TransportErrorCode = 0x100 + 120

// explain gives an error of QUIC, or of a frame, its Code. If ctx has ended, that is the error.
func explain(ctx context.Context, err error) error {
	var (
		known     *wire.Error
		closed    *quic.ApplicationError
		reset     *quic.StreamError
		transport *quic.TransportError
		version   *quic.VersionNegotiationError
	)
	switch {
	case ctx.Err() != nil:
		return ended(ctx)
	case errors.As(err, &known):
		return err
	case errors.As(err, &closed):
		return explainClose(closed)
	case errors.As(err, &reset):
		return wrap(wire.CodeInternal, "the director broke its answer off", err)
	case errors.As(err, &version):
		return wrap(wire.CodeVersion, "no common version of QUIC", err)
	case errors.As(err, &transport) && transport.ErrorCode == noApplicationProtocol:
		return wrap(wire.CodeVersion, "the peer does not speak "+wire.ALPNMgmt, err)
	case errors.As(err, &transport) && transport.ErrorCode.IsCryptoError():
		return wrap(wire.CodeUnauthorized, "TLS handshake", err)
	case errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrMalformed),
		errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrUnexpected):
		return wrap(wire.CodeProtocol, "the director's answer", err)
	default:
		return wrap(wire.CodeLost, "no connection", err)
	}
}

// ended returns why a context did.
func ended(ctx context.Context) error {
	var known *wire.Error
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) || errors.As(cause, &known) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// explainClose reads the reason of a CONNECTION_CLOSE: a Code, and perhaps a message after a colon.
func explainClose(closed *quic.ApplicationError) error {
	if !closed.Remote {
		return wrap(wire.CodeCancelled, "connection", errClosed)
	}
	reason := wire.Text(closed.ErrorMessage)
	code, message, _ := strings.Cut(reason, ":")
	if code == "" || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		code, message = string(closeCode(closed.ErrorCode)), reason
	}
	if message = strings.TrimSpace(message); message == "" {
		message = "the director closed the connection"
	}
	return &coded{&wire.Error{Code: wire.Code(code), Message: message}, closed}
}

func closeCode(code quic.ApplicationErrorCode) wire.Code {
	switch code {
	case wire.QUICShutdown:
		return wire.CodeShutdown
	case wire.QUICProtocol:
		return wire.CodeProtocol
	case wire.QUICRefused:
		return wire.CodeUnavailable
	default:
		return wire.CodeLost
	}
}
