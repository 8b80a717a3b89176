package engine

import (
	"errors"

	"github.com/connswap/connswap/shared/wire"
)

// What an error of an engine means for the stream. Any other than these costs the worker the stream, counts against both, and another
// worker goes on.
var (
	// ErrDiverged says that a generation makes another text than the one that a stream has. Another worker tries, with Request.Tries
	// higher by one.
	ErrDiverged = errors.New("the text is another one")
	// ErrNotContinued says that no engine will go on with the stream: it ends.
	ErrNotContinued = errors.New("the text cannot be continued")
	// ErrBusy says that the engine takes nothing more for now, or is not there: another worker gets the stream, and nobody is blamed.
	ErrBusy = errors.New("the engine takes nothing now")
)

// Rejected returns the error that says that the request itself is at fault: the stream ends, and its caller is told. status is that of
// HTTP, document what an inference server said, in JSON; 0 and nil for an engine without.
func Rejected(message string, status int, document []byte) error {
	e := wire.Errorf(wire.CodeInvalid, "%s", message)
	e.Status, e.Document = status, document
	return e
}

// CodeOf returns what a director is told of an engine's error.
func CodeOf(err error) *wire.Error {
	otherwise := wire.CodeEngine
	switch {
	case errors.Is(err, ErrDiverged):
		otherwise = wire.CodeDiverged
	case errors.Is(err, ErrNotContinued):
		otherwise = wire.CodeNotContinued
	case errors.Is(err, ErrBusy):
		otherwise = wire.CodeUnavailable
	}
	return wire.AsError(err, otherwise)
}
