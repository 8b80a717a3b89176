package wire

import (
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Code says why something was refused or ended, in a word that programs can act on.
type Code string

// Codes that cross the wire. Their texts are part of the protocol.
const (
	CodeInvalid      Code = "invalid_request"   // the request can never work; change it
	CodeLimit        Code = "limit_exceeded"    // a limit of the director; the message names it
	CodeNoWorker     Code = "no_worker"         // none took the session within the time allowed
	CodePoison       Code = "workers_died"      // worker after worker died serving this request
	CodeSwapLimit    Code = "swap_limit"        // the stream was moved too often
	CodeClientStall  Code = "client_stalled"    // the client read nothing for too long
	CodeShutdown     Code = "shutdown"          // the peer is shutting down
	CodeCancelled    Code = "cancelled"         // the other side no longer wants it
	CodeUnavailable  Code = "unavailable"       // a worker takes no new sessions now
	CodeCapacity     Code = "capacity"          // a worker is full
	CodeStaleEpoch   Code = "stale_epoch"       // somebody else owns the session
	CodeDiverged     Code = "diverged"          // digests differ: the text could not be continued exactly
	CodeEngine       Code = "engine_error"      // the engine failed for this request
	CodeNotContinued Code = "not_continued"     // no worker can go on with the text
	CodeProtocol     Code = "protocol_error"    // the peer broke the protocol
	CodeVersion      Code = "version"           // no common protocol version
	CodeLabelInUse   Code = "label_in_use"      // another live worker has this label
	CodeUnauthorized Code = "unauthorized"      // the certificate lacks the role, or the key is missing or unknown
	CodeForbidden    Code = "forbidden"         // the key is good, and not for that
	CodeInternal     Code = "internal"          // a defect of the peer
	CodeLost         Code = "connection_lost"   // local: the peer can no longer be reached
	CodeSuperseded   Code = "instance_replaced" // a newer instance of the same worker took over
	CodeNotFound     Code = "not_found"         // no worker, connection, stream or swap of that name
	CodeConflict     Code = "conflict"          // not now: something else is under way, or it is too late
	CodeModel        Code = "model_not_found"   // no worker has the model that was asked for
	CodeStateGone    Code = "state_unavailable" // there is no snapshot of the session, or no more
)

// Codes for a client that comes back, one for each reason why it is not given what it asks for. CodeResumeTaken is
// for the one that was there before.
const (
	CodeResumeUnknown Code = "resume_unknown" // no such connection is known, or no more
	CodeResumeSecret  Code = "resume_secret"  // the secret is missing, or is not the connection's
	CodeResumeStream  Code = "resume_stream"  // the connection has no such stream, or it is over
	CodeResumeAhead   Code = "resume_ahead"   // the client says that it has more than there is
	CodeResumeBehind  Code = "resume_behind"  // the client wants what it has acknowledged
	CodeResumeDigest  Code = "resume_digest"  // the client has something else than what the stream had
	CodeResumeTaken   Code = "resume_taken"   // the connection, or the stream, went on elsewhere
)

// Codes of refused migration tokens, one for each way to misuse them.
const (
	CodeTokenMissing  Code = "token_missing"  // there is none, and one is needed
	CodeTokenTampered Code = "token_tampered" // what was shown is no secret of a token
	CodeTokenUnknown  Code = "token_unknown"  // no director allowed it here, or its director is gone
	CodeTokenExpired  Code = "token_expired"  // too late, or expires later than a token may: look at the clocks
	CodeTokenPurpose  Code = "token_purpose"  // allows something else
	CodeTokenSession  Code = "token_session"  // for another session, or another director's
	CodeTokenTarget   Code = "token_target"   // for another node, or names another source
	CodeTokenEpoch    Code = "token_epoch"    // for another epoch, or one that is over
	CodeTokenRevoked  Code = "token_revoked"  // its director took it back
	CodeTokenReplayed Code = "token_replayed" // was used before
	CodeTokenRate     Code = "token_rate"     // too many tokens at once; try again later
)

// Error is an error that crosses, or crossed, the wire.
type Error struct {
	Code    Code
	Message string

	Status   int    // of HTTP, with which an engine's server refused the request; 0 where none did
	Document []byte // what it said, in JSON; at most MaxDocument bytes
}

// MaxDocument bounds what crosses the wire of an inference server's words about a request, in bytes.
const MaxDocument = 8 << 10

// Errorf returns an *Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is reports whether target is an *Error with the same code, so that errors.Is(err, &Error{Code: …}) works.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}

// LostPeer reports whether that is how a connection ends from which nothing comes any more: nobody said goodbye.
func LostPeer(err error) bool {
	var idle *quic.IdleTimeoutError
	var closed *quic.ApplicationError
	return errors.As(err, &idle) || errors.As(err, &closed) && !closed.Remote && closed.ErrorCode == QUICLost
}

// Proto returns e as it crosses the wire.
func (e *Error) Proto() *ErrorMessage {
	return &wirepb.Error{Code: Text(string(e.Code)), Message: Text(e.Message), Status: uint32(max(0, e.Status)), Document: e.document()}
}

// FromMessage returns the error that a peer sent.
func FromMessage(m *ErrorMessage) *Error {
	return &Error{Code: Code(m.GetCode()), Message: m.GetMessage(), Status: statusOf(m.GetStatus()), Document: m.GetDocument()}
}

// document is the Document, unless it is too long for the wire.
func (e *Error) document() []byte {
	if len(e.Document) > MaxDocument {
		return nil
	}
	return e.Document
}

// statusOf returns a status of HTTP that says that a request is refused; 0 for any other.
func statusOf(status uint32) int {
	if status < 400 || status > 499 {
		return 0
	}
	return int(status)
}

// AsError returns the *Error in err's chain, or err's text under the given code.
func AsError(err error, otherwise Code) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: otherwise, Message: err.Error()}
}

// Application error codes of QUIC CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING (RFC 9000 §20.2).
// The reason phrase of a close starts with the Code.
const (
	QUICOk        quic.ApplicationErrorCode = 0
	QUICShutdown  quic.ApplicationErrorCode = 1
	QUICProtocol  quic.ApplicationErrorCode = 2
	QUICRefused   quic.ApplicationErrorCode = 3
	QUICLost      quic.ApplicationErrorCode = 4
	QUICTaken     quic.ApplicationErrorCode = 5 // CodeResumeTaken
	StreamOk      quic.StreamErrorCode      = 0
	StreamCancel  quic.StreamErrorCode      = 1
	StreamRefused quic.StreamErrorCode      = 3
	StreamStalled quic.StreamErrorCode      = 4 // CodeClientStall
	StreamTaken   quic.StreamErrorCode      = 5 // CodeResumeTaken
)
