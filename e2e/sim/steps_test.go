package sim

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
)

// decoder is an engine with a step at each interval, which gives all its generations a chunk.
type decoder struct{ engine.Engine }

func stepNow() int64 { return time.Now().UnixNano() / int64(interval) }

func (decoder) Step(ctx context.Context) error {
	select {
	case <-time.After(interval - time.Duration(time.Now().UnixNano())%interval):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e decoder) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := e.Engine.Open(ctx, req, prefix, progress)
	return &decoded{Generation: g, step: stepNow()}, err
}

type decoded struct {
	engine.Generation
	step int64 // of the last chunk
}

func (g *decoded) TryNext() (engine.Chunk, error) {
	if stepNow() == g.step {
		return engine.Chunk{}, engine.ErrNotYet
	}
	g.step = stepNow()
	return g.Next(context.Background())
}

// TestSteps has workers take what their engine makes in steps, for many streams at once: some are not read, some are cancelled, one
// is moved, and then the worker of all of them dies. Those that are read have their whole text.
func TestSteps(t *testing.T) {
	const streams, unread, tokens = 30, 20, 200
	su := setup{
		engine:   decoder{mustEngine(t, "counter")},
		director: func(cfg *config.Director) { cfg.WindowTokens = 8 }, // some have no credit between two steps
		worker:   func(cfg *config.Worker) { cfg.TokenInterval = 0 },
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		for range unread {
			stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "unread", MaxTokens: 50_000})
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(tokens/4*interval, stream.Close)
		}
		op := s.operate()
		var reading sync.WaitGroup
		for i := range streams {
			reading.Go(func() {
				o := s.generate(tokens, func(sequence uint64, at string) {
					switch {
					case i == 0 && sequence == tokens/4:
						s.wg.Go(func() {
							if record, err := op.Swap(s.ctx, s.conn.ID(), unread+streams/2, ""); err != nil || record.State != "Completed" {
								t.Errorf("swap: %+v, %v", record, err)
							}
						})
					case i == 0 && sequence == tokens/2:
						p := s.worker(at)
						p.die(p.host.Kill)
					}
				})
				if o.err != nil || o.text != counted(tokens) {
					t.Errorf("stream %d: %d tokens, %v, swaps %+v", i, o.tokens, o.err, o.swaps)
				}
			})
		}
		reading.Wait()
	})
}
