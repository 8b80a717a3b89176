// Package enginetest tries on an engine what package engine says that must hold. A test of an engine calls [Run].
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
)

// promptly is how long an engine may take to notice that a context has ended. It is generous: a test machine is busy.
const promptly = 5 * time.Second

// Run tries an engine with requests, whose texts should have some dozen chunks. build is called for each engine that is
// needed, as on two workers; the engines have to have equal fingerprints.
func Run(t *testing.T, build func() engine.Engine, requests ...engine.Request) {
	t.Helper()
	ours, theirs := build(), build()
	if ours.Name() == "" || ours.Fingerprint() == "" || ours.Name() != theirs.Name() || ours.Fingerprint() != theirs.Fingerprint() {
		t.Errorf("two of the same are %q %q and %q %q", ours.Name(), ours.Fingerprint(), theirs.Name(), theirs.Fingerprint())
	}
	for _, req := range requests {
		s := &suite{T: t, ours: ours, theirs: theirs, request: req}
		s.whole, s.finish = s.generate(ours, nil)
		t.Run("limits", func(t *testing.T) { s.on(t).limits() })
		t.Run("finish", func(t *testing.T) { s.on(t).finishes() })
		t.Run("cuts", func(t *testing.T) { s.on(t).cuts() })
		t.Run("advance", func(t *testing.T) { s.on(t).advances() })
		t.Run("side by side", func(t *testing.T) { s.on(t).sideBySide() })
		t.Run("cancel", func(t *testing.T) { s.on(t).cancels() })
		t.Run("progress", func(t *testing.T) { s.on(t).progresses() })
		t.Run("strange prefixes", func(t *testing.T) { s.on(t).strangers() })
		t.Run("state", func(t *testing.T) { s.on(t).states() })
		t.Run("steps", func(t *testing.T) { s.on(t).steps() })
	}
}

// suite tries one request.
type suite struct {
	*testing.T
	ours, theirs engine.Engine
	request      engine.Request
	whole        []engine.Chunk // of an undisturbed run
	finish       engine.Finish
}

func (s *suite) on(t *testing.T) *suite {
	other := *s
	other.T = t
	return &other
}

// most bounds a text that does not end.
const most = 10_000

func ignore(int, int) {}

// generate returns the rest of the text after a prefix, and how it ends.
func (s *suite) generate(e engine.Engine, prefix []engine.Chunk) ([]engine.Chunk, engine.Finish) {
	s.Helper()
	g, err := e.Open(s.Context(), s.request, prefix, ignore)
	if err != nil {
		s.Fatalf("Open after %d chunks: %v", len(prefix), err)
	}
	defer s.close(g)
	return s.read(g, len(prefix))
}

func (s *suite) close(g engine.Generation) {
	s.Helper()
	if err := g.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
}

func (s *suite) read(g engine.Generation, after int) (rest []engine.Chunk, finish engine.Finish) {
	s.Helper()
	for {
		c, err := g.Next(s.Context())
		if f, ok := engine.Finished(err); ok {
			return rest, f
		}
		if err != nil {
			s.Fatalf("chunk %d: %v (an end is an engine.Finish with a reason)", after+len(rest)+1, err)
		}
		if rest = append(rest, clone(c)); len(rest) > most {
			s.Fatalf("the text does not end within %d chunks; give a request with MaxTokens", most)
		}
	}
}

func clone(c engine.Chunk) engine.Chunk {
	c.Text, c.Data = bytes.Clone(c.Text), bytes.Clone(c.Data)
	c.TokenIDs = append([]uint32(nil), c.TokenIDs...)
	return c
}

// same reports whether two chunks say the same; what is in Data may differ, it is no part of the text.
func same(a, b engine.Chunk) bool {
	return bytes.Equal(a.Text, b.Text) && a.Choice == b.Choice && a.Channel == b.Channel && a.Count() == b.Count()
}

// compare fails unless chunks are those of the whole text after a cut.
func (s *suite) compare(rest []engine.Chunk, finish engine.Finish, cut int) {
	s.Helper()
	for i, c := range rest {
		if cut+i >= len(s.whole) || !same(c, s.whole[cut+i]) {
			s.Fatalf("cut after %d chunks, the text goes on differently: chunk %d is %+v", cut, cut+i+1, c)
		}
	}
	if cut+len(rest) != len(s.whole) || !reflect.DeepEqual(finish, s.finish) {
		s.Fatalf("cut after %d chunks, the text ends after %d with %+v, not after %d with %+v",
			cut, cut+len(rest), finish, len(s.whole), s.finish)
	}
}

// limits: each chunk is within its limits, and of a choice that was asked for.
func (s *suite) limits() {
	for i, c := range s.whole {
		if err := c.Check(); err != nil {
			s.Errorf("chunk %d: %v", i+1, err)
		}
		if c.Choice >= max(1, s.request.Choices) {
			s.Errorf("chunk %d is of choice %d, of %d", i+1, c.Choice, s.request.Choices)
		}
	}
}

// finishes: the text is no longer than was asked for, the usage is that of its chunks, and it stays at its end.
func (s *suite) finishes() {
	made := engine.Count(s.whole)
	if limit := s.request.MaxTokens; limit > 0 && made > limit*max(1, s.request.Choices) {
		s.Errorf("%d tokens, asked for were %d", made, limit)
	}
	if u := s.finish.Usage; u.Completion != made || u.Prompt < 0 || u.Cached > u.Prompt || u.Reasoning > u.Completion {
		s.Errorf("usage %+v after %d tokens", u, made)
	}
	if s.request.Choices > 1 && len(s.finish.Reasons) != s.request.Choices {
		s.Errorf("%d choices ended for %q", s.request.Choices, s.finish.Reasons)
	}
	rest, finish := s.generate(s.theirs, s.whole)
	s.compare(rest, finish, len(s.whole))
}

// cuts: another worker's engine goes on exactly, wherever the text is cut.
func (s *suite) cuts() {
	for cut := range s.whole {
		rest, finish := s.generate(s.theirs, s.whole[:cut])
		s.compare(rest, finish, cut)
	}
}

// advances: a generation is brought behind chunks that are there already, and refuses those that it would not have made.
func (s *suite) advances() {
	for cut := range s.whole {
		g := s.open(cut / 2)
		if err := engine.Advance(s.Context(), g, s.whole[cut/2:cut], ignore); err != nil {
			s.Fatalf("from chunk %d to %d: %v", cut/2, cut, err)
		}
		rest, finish := s.read(g, cut)
		s.close(g)
		s.compare(rest, finish, cut)
	}
	if len(s.whole) == 0 {
		return
	}
	other := s.whole[0]
	other.Text = append([]byte("another "), other.Text...)
	g := s.open(0)
	defer s.close(g)
	if err := engine.Advance(s.Context(), g, []engine.Chunk{other}, ignore); !errors.Is(err, engine.ErrDiverged) {
		s.Errorf("another text: %v, want ErrDiverged", err)
	}
}

// open opens a generation that goes on after so many chunks.
func (s *suite) open(chunks int) engine.Generation {
	s.Helper()
	g, err := s.theirs.Open(s.Context(), s.request, s.whole[:chunks], ignore)
	if err != nil {
		s.Fatalf("open after %d chunks: %v", chunks, err)
	}
	return g
}

// sideBySide: generations do not depend on each other.
func (s *suite) sideBySide() {
	var open []engine.Generation
	rest := make([][]engine.Chunk, 3)
	for range rest {
		g, err := s.ours.Open(s.Context(), s.request, nil, ignore)
		if err != nil {
			s.Fatal(err)
		}
		defer s.close(g)
		open = append(open, g)
	}
	for i := range s.whole {
		for n, g := range open {
			c, err := g.Next(s.Context())
			if err != nil || !same(c, s.whole[i]) {
				s.Fatalf("beside others chunk %d is %+v, %v", i+1, c, err)
			}
			rest[n] = append(rest[n], c)
		}
	}
}

// cancels: Open and Next return promptly when their context has ended, with its error; Close works after that.
func (s *suite) cancels() {
	ctx, cancel := context.WithCancel(s.Context())
	g, err := s.ours.Open(ctx, s.request, nil, ignore)
	if err != nil {
		s.Fatal(err)
	}
	defer s.close(g)
	if _, err := g.Next(ctx); err != nil && !isFinish(err) {
		s.Fatal(err)
	}
	cancel()
	start := time.Now()
	if _, err := g.Next(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("Next, whose context was cancelled: %v", err)
	}
	if other, err := s.ours.Open(ctx, s.request, s.whole, ignore); err == nil {
		s.close(other) // it had nothing to wait for
	} else if !errors.Is(err, context.Canceled) {
		s.Errorf("Open, whose context was cancelled: %v", err)
	}
	if took := time.Since(start); took > promptly {
		s.Errorf("it took %v", took)
	}
	if c, err := g.Next(s.Context()); len(s.whole) > 1 && (err != nil || !same(c, s.whole[1])) {
		s.Errorf("after a cancelled Next the text goes on with %+v, %v", c, err)
	}
}

func isFinish(err error) bool {
	_, ok := engine.Finished(err)
	return ok
}

// progresses: what Open says of its progress rises, to a number that stays.
func (s *suite) progresses() {
	type report struct{ at, of int }
	reports := make(chan report, 1<<16)
	g, err := s.ours.Open(s.Context(), s.request, s.whole, func(at, of int) { reports <- report{at, of} })
	if err != nil {
		s.Fatal(err)
	}
	defer s.close(g)
	close(reports)
	last := report{}
	for r := range reports {
		if r.at < last.at || r.at > r.of || last.of > 0 && r.of != last.of {
			s.Fatalf("%d of %d after %d of %d", r.at, r.of, last.at, last.of)
		}
		last = r
	}
}

// strangers: a prefix that the engine cannot have made is refused, or gone on from; it brings nothing down.
func (s *suite) strangers() {
	defer func() {
		if p := recover(); p != nil {
			s.Errorf("the engine panicked: %v", p)
		}
	}()
	for _, prefix := range [][]engine.Chunk{
		{{}},
		{{Text: bytes.Repeat([]byte("x"), engine.MaxText)}},
		{{Text: []byte("\xff\x00"), Choice: 127, Channel: engine.ToolCall, Tokens: engine.NoTokens}},
		{{Tokens: engine.MaxTokens, TokenIDs: make([]uint32, engine.MaxTokens), Data: make([]byte, engine.MaxData)}, {}},
	} {
		g, err := s.ours.Open(s.Context(), s.request, prefix, ignore)
		if err != nil {
			continue
		}
		if c, err := g.Next(s.Context()); err == nil && c.Check() != nil {
			s.Errorf("after %+v: %v", prefix, c.Check())
		}
		s.close(g)
	}
}

// states: a generation that was restored goes on as the captured one does.
func (s *suite) states() {
	stateful, ok := s.ours.(engine.Stateful)
	if !ok {
		s.Skip("the engine has no state")
	}
	g, err := stateful.Open(s.Context(), s.request, nil, ignore)
	if err != nil {
		s.Fatal(err)
	}
	defer s.close(g)
	for cut := range len(s.whole) + 1 {
		if cut > 0 {
			if _, err := g.Next(s.Context()); err != nil {
				s.Fatal(err)
			}
		}
		state, err := g.(engine.Capturer).Capture(nil)
		if err != nil {
			s.Fatalf("Capture after %d chunks: %v", cut, err)
		}
		restored, err := s.theirs.(engine.Stateful).Restore(s.Context(), s.request, state)
		if err != nil {
			s.Fatalf("Restore after %d chunks: %v", cut, err)
		}
		rest, finish := s.read(restored, cut)
		s.compare(rest, finish, cut)
		s.close(restored)
	}
}

// steps: what generations have after the engine's steps is the text that Next gives, and nobody waits for it but in Step.
func (s *suite) steps() {
	stepper, ok := s.theirs.(engine.Stepper)
	if !ok {
		s.Skip("the engine has no steps")
	}
	cuts := []int{0, len(s.whole) / 2, len(s.whole)}
	open, rest, finish := make([]engine.Stepped, len(cuts)), make([][]engine.Chunk, len(cuts)), make([]engine.Finish, len(cuts))
	for i, cut := range cuts {
		g, ok := s.open(cut).(engine.Stepped)
		if !ok {
			s.Fatal("a generation of a Stepper is no Stepped")
		}
		defer s.close(g)
		open[i] = g
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	for steps := 0; slices.ContainsFunc(finish, unfinished); steps++ {
		if steps > 0 {
			s.step(ctx, stepper)
		}
		for i, g := range open {
			if unfinished(finish[i]) {
				more, end := s.available(g)
				rest[i], finish[i] = append(rest[i], more...), end
			}
		}
		if steps == 0 && len(s.whole) > 1 && !unfinished(finish[0]) {
			s.Fatal("the whole text came without a step: TryNext waits for it, or there are no steps")
		}
	}
	for i, cut := range cuts {
		s.compare(rest[i], finish[i], cut)
	}
	cancel()
	_ = stepper.Step(ctx) // may be a step that has ended before
	if err := stepper.Step(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("Step, whose context was cancelled: %v", err)
	}
}

func unfinished(f engine.Finish) bool { return f.Reason == "" }

// step waits for a step, which has to come while somebody wants a chunk.
func (s *suite) step(ctx context.Context, e engine.Stepper) {
	s.Helper()
	ctx, cancel := context.WithTimeout(ctx, promptly)
	defer cancel()
	if err := e.Step(ctx); err != nil {
		s.Fatalf("Step, with generations that have no chunk: %v", err)
	}
}

// available returns the chunks that a generation has now, and its finish, if they are the last.
func (s *suite) available(g engine.Stepped) (chunks []engine.Chunk, finish engine.Finish) {
	s.Helper()
	for len(chunks) <= most {
		c, err := g.TryNext()
		if f, over := engine.Finished(err); over || errors.Is(err, engine.ErrNotYet) {
			return chunks, f
		}
		if err != nil {
			s.Fatalf("TryNext: %v", err)
		}
		chunks = append(chunks, clone(c))
	}
	s.Fatalf("the text does not end within %d chunks", most)
	return nil, finish
}
