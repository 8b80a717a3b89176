package upstream

import (
	"context"
	"encoding/json"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
)

// answer asks for an answer that is one document, and has it as the text. Behind a prefix it has to be the same document.
func (g *generation) answer(ctx context.Context, prefix []engine.Chunk, waiting *ticks) error {
	document, err := g.server.Answer(ctx, g.req.API, g.model.Name, g.req.Body)
	waiting.stop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.options.Report(outcome(err))
	if err != nil {
		return failure(err, true, len(prefix) == 0)
	}
	g.compare = &comparer{}
	if err := g.compare.extend(prefix); err != nil {
		return err
	}
	if err := g.compare.take(api.Delta{Text: document}); err != nil {
		return err
	}
	if err := g.compare.ended(); err != nil {
		return err
	}
	var said struct {
		Usage struct {
			Prompt int `json:"prompt_tokens"`
			Cached struct {
				Tokens int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		} `json:"usage"`
	}
	_ = json.Unmarshal(document, &said) // an answer without a usage, or in another form, has none
	g.attempt.prompt = max(0, said.Usage.Prompt)
	g.end = engine.Finish{Reason: engine.Stop, Usage: engine.Usage{Prompt: g.attempt.prompt, Cached: min(said.Usage.Cached.Tokens, g.attempt.prompt)}}
	if len(prefix) > 0 {
		g.resumed = engine.Verified
	}
	return nil
}
