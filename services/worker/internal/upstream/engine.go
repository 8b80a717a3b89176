package upstream

import (
	"context"
	"sync/atomic"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// Options are what an Engine needs beside its server.
type Options struct {
	Name string // of the model, in requests to the worker; the server may call it otherwise
	// MaxReplayTokens is how many tokens a stream may have for its request to be made once more from the beginning; 0 for any number.
	MaxReplayTokens int
	// Overlap is how many tokens of a stream are made again, at least, where it is gone on with by ids; DefaultOverlap if 0.
	Overlap int
	// Report is told how each request for text came out at the server: nil for well, which a rejection of the request is too. It is told
	// nothing where nobody waited for the outcome. Calls may come at once. It may be nil.
	Report func(error)
}

// DefaultOverlap is a good Options.Overlap.
const DefaultOverlap = 6

// How many pieces of an answer are read ahead of who takes them.
const (
	readAhead  = 32
	alongAhead = 4096 // of one that runs along with another worker, and may be faster
)

// Engine is an engine.Engine whose text an inference server makes with one of its models: see the package. It also is an
// engine.Promising and an engine.Answering. It has no model, and takes nothing, before the first Set.
type Engine struct {
	server   server
	options  Options
	now      atomic.Pointer[present]
	reasoned atomic.Bool // the present model was seen to reason
}

// present is which model is there, and what it can.
type present struct {
	model     api.Model
	abilities probe.Abilities
}

// New returns an Engine.
func New(s *api.Server, options Options) *Engine { return newEngine(remote{s}, options) }

func newEngine(s server, options Options) *Engine {
	if options.Overlap <= 0 {
		options.Overlap = DefaultOverlap
	}
	if options.Report == nil {
		options.Report = func(error) {}
	}
	return &Engine{server: s, options: options}
}

// Set says which model is there now, and what was measured of it. It may be called at any time.
func (e *Engine) Set(model api.Model, abilities probe.Abilities) {
	if before := e.now.Swap(&present{model, abilities}); before == nil || before.model.Fingerprint != model.Fingerprint {
		e.reasoned.Store(false)
	}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return e.options.Name }

// Fingerprint implements engine.Engine: it is that of the model that is there now, and empty where there is none.
func (e *Engine) Fingerprint() string {
	if now := e.now.Load(); now != nil {
		return now.model.Fingerprint
	}
	return ""
}

// Promises implements engine.Promising, by what was measured of the model that is there now.
func (e *Engine) Promises() engine.Continuity {
	now := e.now.Load()
	if now == nil {
		return engine.None
	}
	switch now.abilities.Class {
	case probe.Exact:
		return engine.Exact
	case probe.Replayable, probe.IDs:
		return engine.Verified
	case probe.Text:
	}
	if text := e.server.Features().Text; text[wire.APIChat] || text[wire.APICompletions] {
		return engine.Text
	}
	return engine.None
}

// Answers implements engine.Answering.
func (e *Engine) Answers() []string { return e.server.Answers() }

// Open implements engine.Engine. It returns once the first piece of the text is there, behind a prefix once that was made again, as
// far as it has to be.
func (e *Engine) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j, err := e.newJob(req)
	if err != nil {
		return nil, err
	}
	waiting := &ticks{progress: progress}
	waiting.start()
	defer waiting.stop()
	g := newGeneration(j)
	if err := g.open(ctx, prefix, waiting); err != nil {
		g.abandon()
		return nil, err
	}
	return g, nil
}
