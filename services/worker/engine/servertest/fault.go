package servertest

import (
	"fmt"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind uint8

// Faults before anything of an answer has been sent. They ignore At.
const (
	NoFault         FaultKind = iota
	TooManyRequests           // 429, with Retry-After if Delay is set
	InternalError             // 500
	Unavailable               // 503, with Retry-After if Delay is set
	ContextTooLong            // 400 as the kind answers to a prompt beyond its context
	FilteredPrompt            // 400 of a content filter
	RefusePrefill             // 400, to requests that continue: a last message of an assistant, or ids as the prompt. Others pass
	ResetBefore               // the connection is reset before the head of the answer
	SilentBefore              // not even a head, until the client leaves
	SlowFirstToken            // the head comes, the first token only after Delay (pings do)
)

// Faults in a stream, before or in place of event At. An answer that is not a stream has one event, number 0. In a simulated network a
// reset is the end of the connection before that of the body.
const (
	Reset         FaultKind = iota + 64 // the connection is reset
	Silence                             // nothing more, until the client leaves; the connection stays (no pings either)
	Stall                               // nothing for Delay, then it goes on
	HalfEvent                           // half of the event, then a clean end of the body
	CutEvent                            // half of the event, then a reset
	Garbage                             // an event that is not JSON in place of event At, then it goes on
	SilentEnd                           // a clean end of the body, without finish and [DONE]; Ollama puts a chunk with an empty model before it
	ErrorEvent                          // an error object in place of event At, in the kind's form, and its end of the stream
	Duplicate                           // the event before At comes once more
	NoFinish                            // no event has a finish_reason. At is ignored
	NoDone                              // no [DONE]. At is ignored
	NullErrors                          // every event has "error": null, which is harmless. At is ignored
	Aborted                             // it finishes at event At with finish_reason abort
	ContentFilter                       // it finishes at event At with finish_reason content_filter
	Diverge                             // the text is another one from the At-th token on that this request makes
)

// String is the name of the constant.
func (k FaultKind) String() string {
	if name, known := faultNames[k]; known {
		return name
	}
	return fmt.Sprintf("FaultKind(%d)", uint8(k))
}

var faultNames = map[FaultKind]string{
	NoFault: "NoFault", TooManyRequests: "TooManyRequests", InternalError: "InternalError", Unavailable: "Unavailable",
	ContextTooLong: "ContextTooLong", FilteredPrompt: "FilteredPrompt", RefusePrefill: "RefusePrefill", ResetBefore: "ResetBefore",
	SilentBefore: "SilentBefore", SlowFirstToken: "SlowFirstToken", Reset: "Reset", Silence: "Silence", Stall: "Stall",
	HalfEvent: "HalfEvent", CutEvent: "CutEvent", Garbage: "Garbage", SilentEnd: "SilentEnd", ErrorEvent: "ErrorEvent",
	Duplicate: "Duplicate", NoFinish: "NoFinish", NoDone: "NoDone", NullErrors: "NullErrors", Aborted: "Aborted",
	ContentFilter: "ContentFilter", Diverge: "Diverge",
}

// Forever is for Fault.Times.
const Forever = -1

// Fault is something that goes wrong with some requests.
type Fault struct {
	Kind  FaultKind
	At    int                // event, counted from 0; for Diverge the token
	Delay time.Duration      // of SlowFirstToken and Stall; Retry-After of TooManyRequests and Unavailable
	Match func(Request) bool // which requests; nil for all that want text
	Skip  int                // so many matching requests are spared first
	Times int                // so many are hit; 0 for one, Forever for all
	Good  int                // after those so many are spared, and then Times are hit again: a server that flaps. 0 for never again
}
