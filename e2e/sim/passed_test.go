package sim

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
)

// embedding answers requests for embeddings, in three pieces. Its first generation stays silent behind the first piece.
type embedding struct{ opened *atomic.Int64 }

func (embedding) Name() string        { return "embedding" }
func (embedding) Fingerprint() string { return "embedding/1" }
func (embedding) Answers() []string   { return []string{"embeddings"} }

var embedded = []string{`{"object":"list",`, `"data":[{"index":0,`, `"embedding":[0.5,-1]}]}`}

func (e embedding) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	return &vector{first: e.opened.Add(1) == 1, made: len(prefix), request: req}, nil
}

type vector struct {
	first   bool
	made    int
	request engine.Request
}

func (v *vector) Next(ctx context.Context) (engine.Chunk, error) {
	switch {
	case v.request.API != "embeddings" || !strings.Contains(string(v.request.Body), `"dimensions":2`):
		return engine.Chunk{Text: []byte("no request that it was asked")}, nil
	case v.first && v.made == 1:
		<-ctx.Done()
		return engine.Chunk{}, context.Cause(ctx)
	case v.made == len(embedded):
		return engine.Chunk{}, engine.Finish{Reason: engine.Stop, Usage: engine.Usage{Prompt: 1}}
	}
	v.made++
	return engine.Chunk{Text: []byte(embedded[v.made-1]), Tokens: engine.NoTokens}, nil
}

func (v *vector) Close() error { return nil }

// TestEmbeddings: a request that is not for text goes through to a worker that answers such ones, as it is, and to another one when that
// dies in the midst of the answer, of which the client sees the whole.
func TestEmbeddings(t *testing.T) {
	opened := &atomic.Int64{}
	plain := func(cfg *config.Director) { cfg.HTTP = "plain" }
	stage(t, setup{engine: embedding{opened}, director: plain}, func(t *testing.T, s *scenario) {
		f := s.front("web")
		defer f.close()
		answered := make(chan reply, 1)
		go func() {
			r, err := f.ask("POST", "/v1/embeddings", map[string]any{"model": "embedding", "input": "x", "dimensions": 2})
			if err != nil {
				t.Error(err)
			}
			answered <- r
		}()
		s.sleep(time.Second) // by then there is a piece of the answer
		if opened.Load() != 1 {
			t.Fatalf("%d attempts", opened.Load())
		}
		for _, w := range s.workers {
			if w.sessions() > 0 {
				w.die(w.host.Kill)
				break
			}
		}
		r := <-answered
		if want := strings.Join(embedded, "") + "\n"; r.status != 200 || r.body != want || r.header.Get("Content-Type") != "application/json" || opened.Load() != 2 {
			t.Errorf("%d after %d attempts: %q, want %q", r.status, opened.Load(), r.body, want)
		}
		if r, err := f.ask("POST", "/v1/rerank", map[string]any{"model": "embedding", "query": "x"}); err != nil || r.status != 501 {
			t.Errorf("what no model answers: %d %s, %v", r.status, r.body, err)
		}
	})
}
