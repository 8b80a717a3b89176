package enginetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
)

// word is an engine that does what it should, unless it has a defect.
type word struct{ defect string }

func (word) Name() string        { return "word" }
func (word) Fingerprint() string { return "word/1" }

func (w word) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.defect == "panic" && len(prefix) == 1 && len(prefix[0].Text) == 0 {
		panic("an empty chunk")
	}
	progress(len(prefix), len(prefix)+1)
	if w.defect == "progress" && len(prefix) > 0 {
		progress(0, 1)
	}
	made := engine.Count(prefix)
	if w.defect == "usage" {
		made = 0
	}
	g := &words{defect: w.defect, n: len(prefix), own: len(prefix), limit: engine.NewLimit(req, made, 3)}
	if w.defect == "stays" || w.defect == "believes" {
		return advancer{g}, nil
	}
	return g, nil
}

// advancer does not advance, or believes whatever it is told.
type advancer struct{ *words }

func (g advancer) Advance(_ context.Context, chunks []engine.Chunk, _ engine.Progress) error {
	if g.defect == "stays" {
		return nil
	}
	g.n += len(chunks)
	return g.limit.Take(len(chunks))
}

type words struct {
	defect string
	n, own int
	limit  engine.Limit
}

func (g *words) Next(ctx context.Context) (engine.Chunk, error) {
	if ctx.Err() != nil && g.defect != "cancel" {
		return engine.Chunk{}, ctx.Err()
	}
	if err := g.limit.Take(1); err != nil {
		if g.defect == "finish" {
			err = io.EOF
		}
		return engine.Chunk{}, err
	}
	g.n++
	n := g.n
	switch g.defect {
	case "cut":
		n -= g.own
	case "size":
		return engine.Chunk{Text: make([]byte, engine.MaxText+1)}, nil
	case "choice":
		return engine.Chunk{Choice: 1}, nil
	}
	return engine.Chunk{Text: fmt.Appendf(nil, "%d ", n)}, nil
}

func (g *words) Close() error { return nil }

// paced is word with a step for each chunk. Nobody steps but who calls Step.
type paced struct {
	word
	steps atomic.Int64
}

func (p *paced) Step(ctx context.Context) error {
	if ctx.Err() != nil && p.defect != "steps on" {
		return ctx.Err()
	}
	if p.defect == "stands" {
		return errors.New("it stands")
	}
	p.steps.Add(1)
	return nil
}

func (p *paced) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := p.word.Open(ctx, req, prefix, progress)
	if err != nil || p.defect == "unstepped" {
		return g, err
	}
	return &pacedWords{Generation: g, engine: p, step: p.steps.Load()}, nil
}

type pacedWords struct {
	engine.Generation
	engine *paced
	step   int64
}

func (g *pacedWords) TryNext() (engine.Chunk, error) {
	now := g.engine.steps.Load()
	if now == g.step && g.engine.defect != "waits" {
		return engine.Chunk{}, engine.ErrNotYet
	}
	g.step = now
	if g.engine.defect == "skips" {
		_, _ = g.Next(context.Background())
	}
	return g.Next(context.Background())
}

// defective names the defect that a process of its own has.
const defective = "TEST_DEFECT"

func TestSuite(t *testing.T) {
	enginetest.Run(t, func() engine.Engine { return word{os.Getenv(defective)} }, engine.Request{MaxTokens: 12})
}

func TestStepped(t *testing.T) {
	enginetest.Run(t, func() engine.Engine { return &paced{word: word{os.Getenv(defective)}} }, engine.Request{MaxTokens: 12}, engine.Request{MaxTokens: 1})
}

// TestDefects: an engine with a defect does not pass, and the part that finds it is named after what is wrong.
func TestDefects(t *testing.T) {
	for defect, found := range map[string]string{
		"cut": "TestSuite/cuts", "finish": "Finish", "usage": "TestSuite/finish", "cancel": "TestSuite/cancel", "progress": "TestSuite/progress",
		"stays": "FAIL: TestSuite/advance", "believes": "want ErrDiverged",
		"panic": "TestSuite/strange_prefixes", "size": "TestSuite/limits", "choice": "TestSuite/limits",
		"unstepped": "is no Stepped", "waits": "without a step", "skips": "TestStepped/steps", "steps on": "whose context was cancelled",
		"stands": "that have no chunk",
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^(TestSuite|TestStepped)$")
		cmd.Env = append(os.Environ(), defective+"="+defect)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), found) {
			t.Errorf("%s: %v\n%s", defect, err, out)
		}
	}
}
