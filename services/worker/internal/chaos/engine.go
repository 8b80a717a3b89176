package chaos

import (
	"context"

	"github.com/connswap/connswap/services/worker/engine"
)

// Engine returns e with the pace of the step clock, and hanging while the gate is shut.
func (c *Chaos) Engine(e engine.Engine) engine.Engine {
	if c.gate == nil && c.clock == nil {
		return e
	}
	paced := chaotic{e, c}
	if s, ok := e.(engine.Stateful); ok {
		return stateful{paced, s}
	}
	return paced
}

type chaotic struct {
	engine.Engine
	chaos *Chaos
}

func (e chaotic) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if err := e.chaos.pass(ctx); err != nil {
		return nil, err
	}
	g, err := e.Engine.Open(ctx, req, prefix, e.chaos.progress(progress))
	return e.chaos.generation(g, e.Promises()), err
}

// Answers implements engine.Answering; nothing where the engine does not.
func (e chaotic) Answers() []string {
	if a, ok := e.Engine.(engine.Answering); ok {
		return a.Answers()
	}
	return nil
}

// Promises implements engine.Promising; Exact where the engine does not.
func (e chaotic) Promises() engine.Continuity {
	if p, ok := e.Engine.(engine.Promising); ok {
		return p.Promises()
	}
	return engine.Exact
}

type stateful struct {
	chaotic
	inner engine.Stateful
}

func (e stateful) Restore(ctx context.Context, req engine.Request, state []byte) (engine.Generation, error) {
	if err := e.chaos.pass(ctx); err != nil {
		return nil, err
	}
	g, err := e.inner.Restore(ctx, req, state)
	return e.chaos.generation(g, e.Promises()), err
}

// progress returns what keeps a hung engine's progress to itself.
func (c *Chaos) progress(progress engine.Progress) engine.Progress {
	if c.gate == nil {
		return progress
	}
	return func(at, of int) {
		if !c.gate.IsShut() {
			progress(at, of)
		}
	}
}

// generation makes one step of the clock for each chunk.
type generation struct {
	engine.Generation
	chaos   *Chaos
	walker  *Walker // nil for no pace
	promise engine.Continuity
}

func (c *Chaos) generation(g engine.Generation, promise engine.Continuity) engine.Generation {
	if g == nil {
		return nil
	}
	paced := &generation{Generation: g, chaos: c, promise: promise}
	if c.clock != nil {
		paced.walker = c.clock.Walker()
	}
	if inner, ok := g.(engine.Capturer); ok {
		return capturer{paced, inner}
	}
	return paced
}

type capturer struct {
	*generation
	inner engine.Capturer
}

func (g capturer) Capture(buf []byte) ([]byte, error) { return g.inner.Capture(buf) }

// Next takes a step for a chunk, and none to find that there is no more.
func (g *generation) Next(ctx context.Context) (engine.Chunk, error) {
	chunk, err := g.Generation.Next(ctx)
	if err == nil && g.walker != nil {
		if err := g.walker.Wait(ctx); err != nil {
			return engine.Chunk{}, err
		}
	}
	if err := g.chaos.pass(ctx); err != nil {
		return engine.Chunk{}, err
	}
	return chunk, err
}

// Advance takes no steps: to get past chunks that are there already is no making of them.
func (g *generation) Advance(ctx context.Context, chunks []engine.Chunk, progress engine.Progress) error {
	if err := g.chaos.pass(ctx); err != nil {
		return err
	}
	return engine.Advance(ctx, g.Generation, chunks, g.chaos.progress(progress))
}

// Pledge implements engine.Pledging; what the engine promises for all where the generation does not.
func (g *generation) Pledge() engine.Pledge {
	if p, ok := g.Generation.(engine.Pledging); ok {
		return p.Pledge()
	}
	return engine.Pledge{Continuity: g.promise, Resumed: engine.Exact}
}

// PromptTokens implements engine.Prompted; 0 where the generation does not say.
func (g *generation) PromptTokens() int {
	if p, ok := g.Generation.(engine.Prompted); ok {
		return p.PromptTokens()
	}
	return 0
}
