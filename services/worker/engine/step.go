package engine

import (
	"context"
	"errors"
)

// Stepper is an Engine that makes the chunks of many generations at once, step by step, as a GPU does for a batch. It is
// optional. A worker waits once for each step, and then takes what there is for all generations, in one goroutine: to wake
// one for each of them would cost more than what they do then.
type Stepper interface {
	Engine
	// Step returns nil when a step has ended since it did so last, or an error when ctx ends. One goroutine at a time calls
	// it, and only while the worker has use for chunks: Next works without.
	Step(ctx context.Context) error
}

// Stepped is a Generation of a Stepper.
type Stepped interface {
	Generation
	// TryNext is Next, but for the waiting: where the next chunk is not there the error is ErrNotYet, and it is asked for again
	// after the next step.
	TryNext() (Chunk, error)
}

// ErrNotYet says that there is no chunk before another step has ended.
var ErrNotYet = errors.New("the next chunk needs another step")
