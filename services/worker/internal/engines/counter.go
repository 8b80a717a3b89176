package engines

import (
	"context"
	"strconv"

	"github.com/connswap/connswap/services/worker/engine"
)

const (
	counterVersion = 1
	counterWord    = "token-"
)

// Counter counts: its n-th token is "token-n ". It serves for reading logs.
type Counter struct{}

// Name returns counter.
func (Counter) Name() string { return "counter" }

// Fingerprint is a constant.
func (Counter) Fingerprint() string { return fingerprint("counter", counterVersion, counterWord) }

// Open counts on from the length of prefix.
func (Counter) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	limit, err := begin("counter", req, engine.Count(prefix))
	return &count{n: uint64(len(prefix)), limit: limit}, err
}

type count struct {
	n     uint64
	limit engine.Limit
	buf   []byte
}

func (c *count) Next(ctx context.Context) (engine.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return engine.Chunk{}, err
	}
	if err := c.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	c.n++
	c.buf = strconv.AppendUint(append(c.buf[:0], counterWord...), c.n, 10)
	c.buf = append(c.buf, ' ')
	return engine.Chunk{Text: c.buf}, nil
}

// PromptTokens implements engine.Prompted.
func (c *count) PromptTokens() int { return c.limit.PromptTokens() }

func (c *count) Close() error { return nil }
