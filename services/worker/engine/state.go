package engine

import "context"

// Stateful is an Engine whose generations have a state that their chunks do not determine. A session moves to
// another worker with that state.
//
// Next of a restored generation must yield what the captured one would have. Open with a prefix still has to work,
// however long it takes: it is what remains when the state is lost.
type Stateful interface {
	Engine
	// Restore prepares to produce what follows after the state was captured. The memory of state is the
	// generation's from then on. An error means that it is not one of this engine's, for this request, or is damaged; or that ctx
	// ended. Which chunk the state is behind, and that it is the right one, is for the caller to know.
	Restore(ctx context.Context, req Request, state []byte) (Generation, error)
}

// Capturer is what the generations of a Stateful engine are.
type Capturer interface {
	Generation
	// Capture appends the state after the chunks that Next has returned so far to buf, at most wire.MaxState
	// bytes, and returns it. The generation goes on as if nothing had been asked, and neither keeps the copy nor
	// changes it. Capture is never called while Next runs, nor after Close.
	Capture(buf []byte) ([]byte, error)
}
