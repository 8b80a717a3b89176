package sim

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/quicnet"
)

// serving is which worker each stream has.
type serving struct {
	Connections []struct {
		Streams []struct {
			Worker string `json:"worker"`
		} `json:"streams"`
	} `json:"connections"`
}

// TestNoGhosts cuts a worker off and heals the network before the worker could notice: what it still does for the
// dead link must not take the place of new streams.
func TestNoGhosts(t *testing.T) {
	su := setup{
		worker:  func(cfg *config.Worker) { cfg.Capacity = 1 },
		network: func(nw quicnet.Network) quicnet.Network { return noTether{nw} },
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		first := s.inBackground("long", 200)
		time.Sleep(time.Second)
		var all serving
		if err := s.status("/v1/connections", &all); err != nil {
			t.Fatal(err)
		}
		cut := s.worker(all.Connections[0].Streams[0].Worker)
		s.net.Cut(s.director, cut.host)
		s.net.Cut(cut.host, s.director)
		time.Sleep(3 * time.Second)
		s.net.Heal(s.director, cut.host)
		s.net.Heal(cut.host, s.director)
		time.Sleep(time.Second)
		start := time.Now()
		if o := s.generate(5, nil); o.err != nil || len(o.waiting) > 0 || time.Since(start) > time.Second {
			t.Errorf("after %v: %d tokens, %v, told to wait: %+v", time.Since(start), o.tokens, o.err, o.waiting)
		}
		if o := <-first; o.err != nil || o.tokens != 200 || len(o.swaps) != 1 {
			t.Errorf("the stream that was moved: %d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
	})
}

// TestTetherSquatters lets strangers fill the workers' ports with connections that say nothing.
func TestTetherSquatters(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		stranger := s.net.Host("stranger")
		for _, w := range s.workers {
			for range 300 {
				s.wg.Go(func() {
					for s.ctx.Err() == nil {
						if conn, err := stranger.DialStream(s.ctx, w.cfg.Label+":62001"); err == nil {
							_, _ = conn.Read(make([]byte, 1))
							conn.Close() //nolint:errcheck // nothing was at stake
						}
						s.sleep(50 * time.Millisecond)
					}
				})
			}
		}
		time.Sleep(500 * time.Millisecond)
		for _, w := range s.workers { // both need new links, and tethers
			s.net.Cut(w.host, s.director)
			time.Sleep(time.Second)
			s.net.Heal(w.host, s.director)
		}
		time.Sleep(time.Second)
		if o := s.generate(200, nil); o.err != nil || len(o.swaps) > 0 || len(o.waiting) > 0 {
			t.Errorf("%d tokens, %v, swaps %+v, told to wait: %+v", o.tokens, o.err, o.swaps, o.waiting)
		}
	})
}

// wordy makes the largest tokens there are.
type wordy struct{ engine.Engine }

func (e wordy) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := e.Engine.Open(ctx, req, prefix, progress)
	if req.Prompt != "wordy" {
		return g, err
	}
	return wordyGeneration{g}, err
}

type wordyGeneration struct{ engine.Generation }

func (g wordyGeneration) Next(ctx context.Context) (engine.Chunk, error) {
	if _, err := g.Generation.Next(ctx); err != nil {
		return engine.Chunk{}, err
	}
	return engine.Chunk{Text: bytes.Repeat([]byte("x"), engine.MaxText)}, nil
}

// TestUnreadStreams opens many streams, and reads none but the last.
func TestUnreadStreams(t *testing.T) {
	const unread = 300
	su := setup{
		engine:   wordy{mustEngine(t, "counter")},
		director: func(cfg *config.Director) { cfg.WindowTokens = 20 }, // a little more than a stream's window
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		for range unread {
			if _, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "wordy", MaxTokens: 1000}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // until all windows are full
		start := time.Now()
		o := s.generate(40, nil)
		if took := time.Since(start); o.err != nil || o.text != counted(40) || len(o.swaps) > 0 || took > 41*interval {
			t.Errorf("after %v: %d tokens, %v, swaps %+v", took, o.tokens, o.err, o.swaps)
		}
	})
}
