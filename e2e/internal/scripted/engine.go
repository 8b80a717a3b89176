// Package scripted has an engine that says what a test has written for it, and one that breaks off where a test wants it to. With both,
// a test knows what a stream has to say, and can cut it at any chunk.
package scripted

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
)

// Engine answers each prompt with the text that is written for it. It goes on after any part of that.
type Engine map[string]Text

// Text is one answer.
type Text struct {
	Chunks   []engine.Chunk
	Logprobs bool          // each chunk has some, in the form of the API that it is asked through
	Finish   engine.Finish // its usage is what the chunks stand for, if it is empty
}

// Name is that of the model.
func (Engine) Name() string { return "scripted" }

// Fingerprint is the same for all: tests have the same texts everywhere.
func (Engine) Fingerprint() string { return "scripted/1" }

// Open goes on after a prefix.
func (e Engine) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	text, ok := e[req.Prompt]
	if !ok || len(prefix) > len(text.Chunks) {
		return nil, fmt.Errorf("no text is written for %q after %d chunks", req.Prompt, len(prefix))
	}
	return &reading{Text: text, api: req.API, next: len(prefix), limit: engine.NewLimit(req, engine.Count(prefix), promptTokens)}, nil
}

// promptTokens is what each prompt takes.
const promptTokens = 3

// reading is a text being said.
type reading struct {
	Text
	api   string
	next  int
	limit engine.Limit
}

func (r *reading) Next(ctx context.Context) (engine.Chunk, error) {
	if ctx.Err() != nil {
		return engine.Chunk{}, context.Cause(ctx)
	}
	if r.next == len(r.Chunks) {
		f := r.Finish
		if f.Usage == (engine.Usage{}) {
			f.Usage = r.limit.Finish("").Usage
		}
		return engine.Chunk{}, f
	}
	c := r.Chunks[r.next]
	if err := r.limit.Take(c.Count()); err != nil {
		return engine.Chunk{}, err
	}
	if r.Logprobs {
		c.Data = logprobs(r.api, string(c.Text))
	}
	r.next++
	return c, nil
}

// PromptTokens implements engine.Prompted.
func (r *reading) PromptTokens() int { return r.limit.PromptTokens() }

func (*reading) Close() error { return nil }

// logprobs is what a chunk says of its tokens, by the API.
func logprobs(api, token string) []byte {
	said := any(map[string]any{"content": []any{map[string]any{"token": token, "logprob": -0.25, "bytes": nil, "top_logprobs": []any{}}}})
	if api == "completions" {
		said = map[string]any{"tokens": []string{token}, "token_logprobs": []float64{-0.25}, "top_logprobs": []any{nil}, "text_offset": []int{0}}
	}
	b, _ := json.Marshal(map[string]any{"logprobs": said}) // it always can be
	return b
}

// Words are chunks of content.
func Words(texts ...string) []engine.Chunk {
	all := make([]engine.Chunk, len(texts))
	for i, text := range texts {
		all[i].Text = []byte(text)
	}
	return all
}

// Call is a tool call: its tool's name, and pieces of what the tool is called with. kind is empty for a function.
func Call(index int, kind, name string, pieces ...string) []engine.Chunk {
	all := Words(append([]string{name}, pieces...)...)
	of := map[string]any{"index": index}
	if kind != "" {
		of["type"] = kind
	}
	for i := range all {
		all[i].Channel = engine.ToolCall
		all[i].Data, _ = json.Marshal(map[string]any{"call": of}) // it always can be
	}
	return all
}

// Of gives chunks a channel.
func Of(channel engine.Channel, chunks []engine.Chunk) []engine.Chunk {
	for i := range chunks {
		chunks[i].Channel = channel
	}
	return chunks
}

// Beside deals chunks out: those of each list are a choice.
func Beside(choices ...[]engine.Chunk) (all []engine.Chunk) {
	for i := range choices[0] {
		for choice, chunks := range choices {
			if i < len(chunks) {
				c := chunks[i]
				c.Choice = choice
				all = append(all, c)
			}
		}
	}
	return all
}
