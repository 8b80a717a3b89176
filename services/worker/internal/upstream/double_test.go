package upstream

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// double is a server that makes one answer, of one token in each piece, and goes on with it from wherever it is asked to. What it does
// otherwise its fields say. They are not changed while it is used, but by those that say so.
type double struct {
	features api.Features
	prompt   []uint32
	script   []api.Delta // of all choices, one token each
	finish   engine.Finish
	borders  *rand.Rand                          // joins pieces, as it comes
	refuse   func(call api.Call) error           // of Generate; nil for none
	fail     func(call api.Call, made int) error // before a piece, or the end; nil for none
	drift    int                                 // tokens of the answer before which it begins to be another one; 0 for never
	unlikely bool                                // Likely says no
	warming  error                               // of Warm
	document func(of string, body []byte) ([]byte, error)
	gate     chan struct{} // a piece comes for each value; nil for all at once

	mu      sync.Mutex
	calls   []api.Call
	warmed  []api.Call
	checked int
	running int
}

func (d *double) Features() api.Features { return d.features }

func (d *double) Tokenize(context.Context, api.Call) ([]uint32, error) {
	if !d.features.Prompt {
		return nil, errors.ErrUnsupported
	}
	return slices.Clone(d.prompt), nil
}

func (d *double) Warm(_ context.Context, call api.Call) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warmed = append(d.warmed, call)
	return d.warming
}

func (d *double) Likely(context.Context, string, []uint32, int) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checked++
	return !d.unlikely, nil
}

func (d *double) Answer(_ context.Context, of, _ string, body []byte) ([]byte, error) {
	return d.document(of, body)
}

func (d *double) Answers() []string { return []string{"embeddings"} }

// asked returns what it was asked for so far.
func (d *double) asked() []api.Call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

func (d *double) Generate(ctx context.Context, call api.Call) (stream, error) {
	d.mu.Lock()
	d.calls = append(d.calls, call)
	d.mu.Unlock()
	if d.refuse != nil {
		if err := d.refuse(call); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	d.running++
	d.mu.Unlock()
	return &script{double: d, ctx: ctx, call: call, pieces: d.pieces(call), finish: d.finishOf(call)}, nil
}

// from returns at which token of its answer a call goes on.
func (d *double) from(call api.Call) int {
	if call.IDs != nil {
		return len(call.IDs) - len(d.prompt)
	}
	n := 0
	for rest := call.Text; len(rest) > 0 && n < len(d.script) && bytes.HasPrefix(rest, d.script[n].Text); n++ {
		rest = rest[len(d.script[n].Text):]
	}
	return n
}

// limit is how many tokens of its answer a call gets.
func (d *double) limit(call api.Call) int {
	return min(len(d.script), d.from(call)+call.MaxTokens*max(1, call.Choices))
}

func (d *double) pieces(call api.Call) []api.Delta {
	var pieces []api.Delta
	for i := d.from(call); i < d.limit(call); i++ {
		p := d.script[i]
		if d.drift > 0 && i >= d.drift {
			p.Text = append([]byte("~"), p.Text...)
		}
		if call.IDs != nil {
			p.Logprobs = nil
		}
		if last := len(pieces) - 1; d.borders != nil && last >= 0 && d.joins(&pieces[last], &p) {
			continue
		}
		p.Text, p.IDs = bytes.Clone(p.Text), slices.Clone(p.IDs)
		pieces = append(pieces, p)
	}
	return pieces
}

// joins adds a piece to the one before, if it may, and if it so happens.
func (d *double) joins(to, p *api.Delta) bool {
	if p.Choice != to.Choice || p.Channel != to.Channel || p.Channel == engine.ToolCall || p.Logprobs != nil || d.borders.IntN(2) == 0 {
		return false
	}
	to.Text = append(to.Text, p.Text...)
	to.IDs = append(to.IDs, p.IDs...)
	to.Tokens += p.Tokens
	return true
}

func (d *double) finishOf(call api.Call) engine.Finish {
	f := d.finish
	from, to := d.from(call), d.limit(call)
	f.Usage = engine.Usage{Prompt: len(d.prompt), Completion: to - from}
	if call.IDs != nil || call.Text != nil {
		f.Usage.Prompt += from
	}
	if to < len(d.script) {
		f.Reason = engine.Length
	}
	return f
}

// script is an answer of a double.
type script struct {
	*double
	ctx    context.Context
	call   api.Call
	pieces []api.Delta
	made   int
	finish engine.Finish
	closed bool
}

func (s *script) Next() (api.Delta, error) {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-s.ctx.Done():
			return api.Delta{}, s.ctx.Err()
		}
	}
	if err := s.ctx.Err(); err != nil {
		return api.Delta{}, err
	}
	if s.fail != nil {
		if err := s.fail(s.call, s.made); err != nil {
			return api.Delta{}, err
		}
	}
	if s.made == len(s.pieces) {
		return api.Delta{}, s.finish
	}
	s.made++
	return s.pieces[s.made-1], nil
}

func (s *script) PromptTokens() int { return s.finish.Usage.Prompt }

func (s *script) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.running--
	}
}

// everything is what a server can be asked for at most.
func everything() api.Features {
	all := map[string]bool{wire.APIChat: true, wire.APICompletions: true}
	return api.Features{IDs: all, Prompt: true, Likely: true, Text: all}
}

// exact is a model of which everything good was seen.
var exact = probe.Abilities{Class: probe.Exact, Repeats: true, RepeatsBusy: true, Continues: true, ContinuesBusy: true, Greedy: true}

// replayable is one whose texts can be made again.
var replayable = probe.Abilities{Class: probe.Replayable, Repeats: true, RepeatsBusy: true}

var theModel = api.Model{Name: "org/model", Fingerprint: "fingerprint"}

// engineOf is an engine of a double's model.
func engineOf(d *double, abilities probe.Abilities, options Options) *Engine {
	options.Name = "model"
	e := newEngine(d, options)
	e.Set(theModel, abilities)
	return e
}

// words is an answer of so many tokens, with ids.
func words(n int) (pieces []api.Delta) {
	texts := []string{"The", " quick", " brown", " fox", " un", "der", " é", "\n"}
	for i := range n {
		pieces = append(pieces, api.Delta{Text: []byte(texts[i*7%len(texts)]), IDs: []uint32{uint32(100 + i)}, Tokens: 1})
	}
	return pieces
}

// plainDouble makes so many words, and can do everything.
func plainDouble(n int) *double {
	return &double{features: everything(), prompt: []uint32{1, 2, 3}, script: words(n), finish: engine.Finish{Reason: engine.Stop}}
}

func ignore(int, int) {}

// chat is a request of the API chat/completions with some more fields.
func chat(fields string) engine.Request {
	if fields != "" {
		fields = "," + fields
	}
	return engine.Request{
		API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"Hi"}]` + fields + `}`), MaxTokens: 1000, Choices: 1, Seed: 7,
		Fingerprint: theModel.Fingerprint,
	}
}

// opened opens a generation, to be closed at the test's end.
func opened(t *testing.T, e *Engine, req engine.Request, prefix []engine.Chunk) engine.Generation {
	t.Helper()
	g, err := e.Open(t.Context(), req, prefix, ignore)
	if err != nil {
		t.Fatalf("behind %d chunks: %v", len(prefix), err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// rest reads a generation to its end.
func rest(t *testing.T, g engine.Generation) (all []engine.Chunk, finish engine.Finish) {
	t.Helper()
	for {
		c, err := g.Next(t.Context())
		if f, ok := engine.Finished(err); ok {
			return all, f
		}
		if err != nil {
			t.Fatalf("after %d chunks: %v", len(all), err)
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		c.Text, c.Data, c.TokenIDs = bytes.Clone(c.Text), bytes.Clone(c.Data), slices.Clone(c.TokenIDs)
		all = append(all, c)
	}
}

// quiet fails if a double still works for anybody.
func quiet(t *testing.T, d *double) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running != 0 {
		t.Errorf("the server still works for %d requests", d.running)
	}
}
