// Package engine is what a worker needs from whatever produces its text.
//
// An [Engine] turns a [Request] into chunks and a finish. Open prepares that, Next makes the chunks one after the other,
// and ends with a [Finish], which says why the text is over and what it took:
//
//	g, err := e.Open(ctx, req, nil, func(at, of int) {})
//	for err == nil {
//		chunk, err = g.Next(ctx)
//		…
//	}
//	if finish := (engine.Finish{}); errors.As(err, &finish) {
//		// complete, because of finish.Reason
//	}
//
// Any other end is a failure: the worker gives the stream up, and another one goes on with it.
//
// # What must hold
//
// A stream is continued by another worker from the chunks that the client has read, and the client must not
// see a seam. For that an engine must be deterministic: chunk n+1 is a function of the request and of chunks
// 1 to n. It must not depend on the time, on the machine, on other generations, or on where the prefix ends
// and the engine's own chunks begin: for any n, Open with the first n chunks of a generation as the prefix
// yields the rest of that same generation, and the same finish.
//
// Engines with equal fingerprints continue each other. Whatever changes a chunk has to change the fingerprint:
// the name, the version of the algorithm, the weights, the tokenizer.
//
// What more an engine can do it says by further methods: a [Stateful] one moves with a state, the generations of an [Advancer] get past
// chunks that are there already by other means than making them, [Prompted] ones know the size of their prompt, an [Answering] engine
// answers requests that are not for text, and a [Stepper] makes the chunks of many generations in one step. Package enginetest tries
// what makes chunks on an engine.
package engine

import "context"

// Request is what is to be generated.
type Request struct {
	Model  string // that was asked for; empty for the worker's only one, or its first
	Prompt string
	Body   []byte // the request in its original form, if there is more to it than a prompt; not to be changed
	API    string // whose form Body has: chat.completions, completions or responses, of OpenAI, or one of an Answering; empty for none
	Trace  string // traceparent (W3C Trace Context), for an engine that passes the request on

	MaxTokens  int      // of the whole text, prefix included; at it the engine finishes with Length. 0 for no limit
	Stop       []string // the director ends the text before the first of these; an engine may stop earlier for them
	Choices    int      // how many texts; at least 1
	Seed       uint64
	Continuity Continuity // that the caller asks for at least
	Priority   uint8      // the higher one goes first, where somebody has to wait

	Fingerprint string // of the engine that made the end of the prefix; empty where there is none
	Tries       int    // how often in a row engines have said ErrDiverged behind this prefix: one with other ways to go on takes the next
	Role        Role
}

// Role is what a generation is opened for.
type Role uint8

// Roles of generations.
const (
	Serving Role = iota
	// StandingBy is that of one which is to take over from another worker, a moment from now, and until then is brought what that
	// makes: see Advancer. It gets ready, and may leave the making until then.
	StandingBy
	// RunningAlong is that of one which takes over as soon as the other worker is lost, whenever that is: it makes the whole text,
	// and has the next chunks there.
	RunningAlong
)

// Continuity is what is promised for a stream when its worker is lost.
type Continuity uint8

// Classes of continuity, from the weakest to the strongest.
const (
	None     Continuity = iota // the stream ends in an explicit error
	Text                       // another worker continues the text that was delivered
	Verified                   // what was delivered was made again, and is the same
	Exact                      // the text is the one that an undisturbed run would have had
)

// Engine produces text. It is safe for concurrent use.
type Engine interface {
	// Name is that of the model, in requests, in the configuration and in logs.
	Name() string
	// Fingerprint is equal for engines that continue each other's streams exactly.
	Fingerprint() string
	// Open prepares to produce what follows after prefix, the chunks that were produced already; it may be
	// empty. The generation may keep prefix, and must not change it. An error means that this request cannot
	// be served by this engine. ctx ends the call, not the generation. Many calls may come at once, when another
	// worker has died: an engine that computes much here has to bound them, or nobody else in the process gets
	// to run and its directors take it for dead.
	//
	// Where it takes longer than a moment, Open has to say how far it is, with progress: a director that hears
	// nothing new for half a second, or for several times as long as usual, gives the worker's attempt up.
	Open(ctx context.Context, req Request, prefix []Chunk, progress Progress) (Generation, error)
}

// Progress takes note of how far an engine is on its way to where a stream is: at of a number of the engine's own, which
// should not change. It is cheap, never blocks, and may be called from any goroutine until Open has returned.
type Progress func(at, of int)

// Generation is one text being produced. One goroutine uses it.
type Generation interface {
	// Next returns the next chunk, whose memory is valid until the following call. At the end of the text, also where
	// that is MaxTokens of the request, the error is a [Finish], and there is no chunk. Next returns promptly with an
	// error when ctx ends.
	Next(ctx context.Context) (Chunk, error)
	// Close releases what the generation holds. It is called exactly once, after the last Next.
	Close() error
}
