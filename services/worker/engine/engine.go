// Package engine is what a worker needs from whatever produces its tokens.
//
// # What must hold
//
// A stream is continued by another worker from the tokens that the client has read, and the client must not
// see a seam. For that an engine must be deterministic: token n+1 is a function of the request and of tokens
// 1 to n. It must not depend on the time, on the machine, on other generations, or on where the prefix ends
// and the engine's own tokens begin: for any n, Open with the first n tokens of a generation as the prefix
// yields the rest of that same generation.
//
// Engines with equal fingerprints continue each other. Whatever changes a token has to change the fingerprint:
// the name, the version of the algorithm, the weights, the tokenizer.
package engine

import "context"

// Request is what is to be generated.
type Request struct {
	Prompt    string
	MaxTokens int // 0 for no limit of the request's own; the worker counts, the engine need not
	Seed      uint64
}

// Engine produces token streams. It is safe for concurrent use.
type Engine interface {
	// Name is the engine's name in the configuration and in logs.
	Name() string
	// Fingerprint is equal for engines that continue each other's streams exactly.
	Fingerprint() string
	// Open prepares to produce what follows after prefix, the tokens that were produced already; it may be
	// empty. The generation may keep prefix, and must not change it. An error means that this request cannot
	// be served by this engine. ctx ends the call, not the generation. Many calls may come at once, when another
	// worker has died: an engine that computes much here has to bound them, or nobody else in the process gets
	// to run and its directors take it for dead.
	Open(ctx context.Context, req Request, prefix [][]byte) (Generation, error)
}

// Generation is one token stream being produced. One goroutine uses it.
type Generation interface {
	// Next returns the next token, of 1 to wire.MaxToken bytes, valid until the following call. At the
	// natural end of the text it returns io.EOF. It returns promptly with an error when ctx ends.
	Next(ctx context.Context) ([]byte, error)
	// Close releases what the generation holds. It is called exactly once, after the last Next.
	Close() error
}
