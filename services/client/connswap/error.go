package connswap

import (
	"context"
	"errors"
	"fmt"

	"github.com/connswap/connswap/services/client/internal/fault"
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
	CodeModel        = wire.CodeModel        // no worker has the model; the message names those that there are
	CodeNoWorker     = wire.CodeNoWorker     // no worker took the stream within the time allowed
	CodePoison       = wire.CodePoison       // worker after worker died serving this request
	CodeSwapLimit    = wire.CodeSwapLimit    // the stream was moved too often
	CodeClientStall  = wire.CodeClientStall  // this client read nothing for too long
	CodeShutdown     = wire.CodeShutdown     // the director is shutting down
	CodeCancelled    = wire.CodeCancelled    // the director gave the stream up
	CodeUnavailable  = wire.CodeUnavailable  // the director takes nothing new now
	CodeEngine       = wire.CodeEngine       // the engine failed for this request
	CodeNotContinued = wire.CodeNotContinued // no worker can go on with the text
	CodeDiverged     = wire.CodeDiverged     // the text could not be continued exactly
	CodeProtocol     = wire.CodeProtocol     // the director broke the protocol, or says that this client did
	CodeVersion      = wire.CodeVersion      // no common version of the protocol
	CodeUnauthorized = wire.CodeUnauthorized // a certificate is missing, not valid, or for another role; or the key is
	CodeForbidden    = wire.CodeForbidden    // the key is good, and not for that model
	CodeInternal     = wire.CodeInternal     // a defect
	CodeLost         = wire.CodeLost         // the director cannot be reached, or no longer

	// After the connection was lost.
	CodeResumeUnknown = wire.CodeResumeUnknown // the director does not know the connection, or no more
	CodeResumeSecret  = wire.CodeResumeSecret  // this client is not the one that had the connection
	CodeResumeStream  = wire.CodeResumeStream  // there is no such stream any more
	CodeResumeAhead   = wire.CodeResumeAhead   // this client has more of the stream than there is
	CodeResumeBehind  = wire.CodeResumeBehind  // this client wants what it has acknowledged
	CodeResumeDigest  = wire.CodeResumeDigest  // this client has something else than what the stream had
	CodeResumeTaken   = wire.CodeResumeTaken   // somebody with the same secret goes on with the connection
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
var ErrClosed = fault.ErrClosed

// explainIn gives an error of what was done under ctx its Code. If ctx has ended, that is the error.
func explainIn(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	return explain(err)
}

// explain gives an error of QUIC, or of a frame, its Code. An error that has one, and an end of the caller's
// context, stay as they are.
func explain(err error) error {
	if wire.BadFrame(err) {
		return broken(ErrFrame, "%v", err)
	}
	return fault.Connection(err, wire.ALPNClient)
}

// broken returns the error for a promise that does not hold.
func broken(promise error, format string, args ...any) error {
	return fault.New(CodeProtocol, promise, "%v: %s", promise, fmt.Sprintf(format, args...))
}
