package chaos_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
	"github.com/connswap/connswap/services/worker/internal/chaos"
	"github.com/connswap/connswap/services/worker/internal/engines"
)

func builtIn(t *testing.T, name string) engine.Engine {
	t.Helper()
	e, err := engines.New(name, engines.Options{StateBytes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestNothingIsWrapped: a worker without a pace that is not to fail has its engines as they are.
func TestNothingIsWrapped(t *testing.T) {
	for mode, wrapped := range map[string]bool{
		chaos.None: false, chaos.Error: false, chaos.Exit: false, chaos.Drop: false, chaos.Hang: true, chaos.Slow: true,
	} {
		e := builtIn(t, "counter")
		if got := chaos.New(mode, 0, 0).Engine(e); (got != e) != wrapped {
			t.Errorf("%s: wrapped %v, want %v", mode, got != e, wrapped)
		}
	}
}

// TestWrappedEngines: what is wrapped is still an engine.
func TestWrappedEngines(t *testing.T) {
	for _, name := range []string{"counter", "markov", "stateful"} {
		for _, mode := range []string{chaos.Hang, chaos.Slow} {
			t.Run(name+" "+mode, func(t *testing.T) {
				enginetest.Run(t, func() engine.Engine { return chaos.New(mode, 0, 0).Engine(builtIn(t, name)) },
					engine.Request{Prompt: "The mill", MaxTokens: 30, Choices: 1, Seed: 5})
			})
		}
	}
}

// TestWrappedPrompt: a wrapped generation still says how many tokens its prompt has.
func TestWrappedPrompt(t *testing.T) {
	for _, name := range []string{"counter", "markov", "stateful"} {
		e := chaos.New(chaos.None, time.Second, 0).Engine(builtIn(t, name))
		g, err := e.Open(t.Context(), engine.Request{Prompt: "The mill", Choices: 1}, nil, func(int, int) {})
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := g.(engine.Prompted); !ok || p.PromptTokens() != 2 {
			t.Errorf("%s: %T does not say that its prompt has 2 tokens", name, g)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// steps makes n chunks and returns when each came.
func steps(t *testing.T, g engine.Generation, n int) (at []time.Duration) {
	t.Helper()
	start := time.Now()
	for range n {
		if _, err := g.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		at = append(at, time.Since(start))
	}
	return at
}

// TestPace: a chunk for each step, none for the finish, none for what is there already; and nothing while it hangs.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chaos.New(chaos.Hang, time.Second, 0)
		e, req := c.Engine(builtIn(t, "counter")), engine.Request{MaxTokens: 8, Choices: 1}
		g, err := e.Open(t.Context(), req, nil, func(int, int) {})
		if err != nil {
			t.Fatal(err)
		}
		if at := steps(t, g, 3); !slices.Equal(at, []time.Duration{0, time.Second, 2 * time.Second}) {
			t.Errorf("steps at %v", at)
		}
		var chunks []engine.Chunk
		for _, text := range texts(t, req, 6)[3:] {
			chunks = append(chunks, engine.Chunk{Text: []byte(text)})
		}
		start := time.Now()
		if err := engine.Advance(t.Context(), g, chunks, func(int, int) {}); err != nil || time.Since(start) != 0 {
			t.Errorf("advanced in %v: %v", time.Since(start), err)
		}
		hang := c.Effect(chaos.Effect{}, chaos.Effect{})
		hang.Begin("a test")
		time.AfterFunc(10*time.Second, hang.End)
		if at := steps(t, g, 2); at[0] != 10*time.Second || at[1] != 11*time.Second {
			t.Errorf("through the hang at %v", at)
		}
		start = time.Now()
		if _, err := g.Next(t.Context()); err == nil || time.Since(start) != 0 {
			t.Errorf("finished with %v after %v", err, time.Since(start))
		}
		hang.Begin("another")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := e.Open(ctx, req, nil, func(int, int) {}); err == nil || ctx.Err() == nil {
			t.Errorf("opened while it hangs: %v", err)
		}
	})
}

// texts returns those of the first chunks.
func texts(t *testing.T, req engine.Request, n int) (all []string) {
	t.Helper()
	g, err := builtIn(t, "counter").Open(t.Context(), req, nil, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		chunk, err := g.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(chunk.Text))
	}
	return all
}
