package connswap

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// Error says in a Code why a connection or a stream ended. It is in the chain of every error of this package
// but three: the caller's own context ended, or the caller closed the stream ([ErrClosed]) or the connection.
type Error = wire.Error

// Code is a word that programs can act on.
type Code = wire.Code

// Codes that a client meets.
const (
	CodeInvalid      = wire.CodeInvalid      // the request can never work; change it
	CodeLimit        = wire.CodeLimit        // a limit of the director; the message names it
	CodeNoWorker     = wire.CodeNoWorker     // no worker took the stream within the time allowed
	CodePoison       = wire.CodePoison       // worker after worker died serving this request
	CodeSwapLimit    = wire.CodeSwapLimit    // the stream was moved too often
	CodeClientStall  = wire.CodeClientStall  // this client read nothing for too long
	CodeShutdown     = wire.CodeShutdown     // the director is shutting down
	CodeCancelled    = wire.CodeCancelled    // the director gave the stream up
	CodeUnavailable  = wire.CodeUnavailable  // the director takes nothing new now
	CodeEngine       = wire.CodeEngine       // the engine failed for this request
	CodeDiverged     = wire.CodeDiverged     // the text could not be continued exactly
	CodeProtocol     = wire.CodeProtocol     // the director broke the protocol, or says that this client did
	CodeVersion      = wire.CodeVersion      // no common version of the protocol
	CodeUnauthorized = wire.CodeUnauthorized // a certificate is missing, not valid, or for another role
	CodeInternal     = wire.CodeInternal     // a defect
	CodeLost         = wire.CodeLost         // the director cannot be reached, or no longer
)

// Broken promises of a director. Each comes with an *[Error] of [CodeProtocol] that has the details.
var (
	ErrSequence  = errors.New("tokens are missing, repeated or out of order")
	ErrEpoch     = errors.New("a token or a swap of an epoch that is not the stream's")
	ErrDigest    = errors.New("the tokens that arrived are not the ones that were sent")
	ErrCount     = errors.New("the number of tokens that arrived is not the one announced")
	ErrTruncated = errors.New("the stream ended without a word")
	ErrFrame     = errors.New("a frame that the protocol does not allow")
)

// ErrClosed is what a stream yields after its Close.
var ErrClosed = errors.New("closed by this side")

// errSilent is why a connection counts as lost before QUIC gives it up.
var errSilent = errors.New("nothing came from the director any more")

// ended returns why a context did.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, ErrClosed) || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// explainIn is explain for what was done under ctx.
func explainIn(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return explain(err)
}

// coded gives a cause its Code. It reads as the Error, whose message has the cause's.
type coded struct {
	err   *Error
	cause error
}

func (c *coded) Error() string   { return c.err.Error() }
func (c *coded) Unwrap() []error { return []error{c.err, c.cause} }

// wrap gives err a Code, and a message of what failed and why.
func wrap(code Code, what string, err error) error {
	return &coded{wire.Errorf(code, "%s: %v", what, err), err}
}

// broken returns the error for a promise that does not hold.
func broken(promise error, format string, args ...any) error {
	return &coded{wire.Errorf(CodeProtocol, "%v: %s", promise, fmt.Sprintf(format, args...)), promise}
}

// explain gives an error of QUIC, or of a frame, its Code. An error that has one, and an end of the caller's
// context, stay as they are.
func explain(err error) error {
	var (
		known     *Error
		closed    *quic.ApplicationError
		reset     *quic.StreamError
		transport *quic.TransportError
		version   *quic.VersionNegotiationError
	)
	switch {
	case errors.As(err, &known), errors.Is(err, ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &closed):
		return explainClose(closed)
	case errors.As(err, &reset):
		return wrap(resetCode(reset.ErrorCode), "the director reset the stream", err)
	case errors.As(err, &version):
		return wrap(CodeVersion, "no common version of QUIC", err)
	case errors.As(err, &transport) && transport.ErrorCode.IsCryptoError():
		return explainHandshake(transport)
	case errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrMalformed),
		errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrUnexpected):
		return broken(ErrFrame, "%v", err)
	default:
		return wrap(CodeLost, "no connection", err)
	}
}

// explainClose reads the reason of a CONNECTION_CLOSE: a Code, and perhaps a message after a colon.
func explainClose(closed *quic.ApplicationError) error {
	switch {
	case wire.LostPeer(closed):
		return wrap(CodeLost, "no connection", errSilent)
	case !closed.Remote:
		return fmt.Errorf("connection: %w", ErrClosed)
	}
	reason := wire.Text(closed.ErrorMessage)
	code, message, _ := strings.Cut(reason, ":")
	if !isCode(code) {
		code, message = string(closeCode(closed.ErrorCode)), reason
	}
	if message = strings.TrimSpace(message); message == "" {
		message = "the director closed the connection"
	}
	return &coded{&Error{Code: Code(code), Message: message}, closed}
}

func isCode(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

func closeCode(code quic.ApplicationErrorCode) Code {
	switch code {
	case wire.QUICShutdown:
		return CodeShutdown
	case wire.QUICProtocol:
		return CodeProtocol
	case wire.QUICRefused:
		return CodeUnavailable
	default:
		return CodeLost
	}
}

func resetCode(code quic.StreamErrorCode) Code {
	switch code {
	case wire.StreamRefused:
		return CodeUnavailable
	case wire.StreamCancel:
		return CodeCancelled
	case wire.StreamStalled:
		return CodeClientStall
	default:
		return CodeInternal
	}
}

// noApplicationProtocol is the TLS alert of a server that speaks none of the protocols offered (RFC 7301 §3.2),
// as QUIC carries it (RFC 9001 §4.8).
const noApplicationProtocol quic.TransportErrorCode = 0x100 + 120

func explainHandshake(err *quic.TransportError) error {
	if err.ErrorCode == noApplicationProtocol {
		return wrap(CodeVersion, "the peer does not speak "+wire.ALPNClient, err)
	}
	return wrap(CodeUnauthorized, "TLS handshake", err)
}
