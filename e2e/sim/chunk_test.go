package sim

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
)

// thinker is an engine that thinks, says something, calls a tool, and finishes by itself: with chunks of every kind.
type thinker struct {
	open  func(ctx context.Context, after int, progress engine.Progress) error // what Open does first; nil for nothing
	plain bool                                                                 // it says plain words only
}

func (*thinker) Name() string        { return "thinker" }
func (*thinker) Fingerprint() string { return "thinker/1" }

func (e *thinker) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if e.open != nil {
		if err := e.open(ctx, len(prefix), progress); err != nil {
			return nil, err
		}
	}
	return &thoughts{engine: e, choices: req.Choices, n: len(prefix), tokens: engine.Count(prefix)}, nil
}

const thoughtsOf = 90

type thoughts struct {
	engine     *thinker
	choices, n int
	tokens     int
}

func (g *thoughts) Next(ctx context.Context) (engine.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return engine.Chunk{}, err
	}
	if g.n == thoughtsOf {
		f := engine.Finish{Reason: engine.ToolCalls, Usage: engine.Usage{Prompt: 3, Completion: g.tokens, Cached: 1, Reasoning: 2}}
		if g.choices > 1 {
			f.Reasons = []string{engine.ToolCalls, engine.Stop}
		}
		return engine.Chunk{}, f
	}
	g.n++
	c := chunkNumber(g.n, g.choices, g.engine.plain)
	g.tokens += c.Count()
	return c, nil
}

func (*thoughts) Close() error { return nil }

// chunkNumber is what a thinker makes n-th.
func chunkNumber(n, choices int, plain bool) engine.Chunk {
	c := engine.Chunk{Text: fmt.Appendf(nil, "%d ", n)}
	switch {
	case plain:
	case n%7 == 0:
		c.Text, c.Tokens = nil, engine.NoTokens
	case n%5 == 0:
		c.Tokens, c.TokenIDs, c.Data = 2, []uint32{uint32(n), 1 << 31}, fmt.Appendf(nil, `{"n":%d}`, n)
	case n < 20:
		c.Channel = engine.Reasoning
	case n > 80:
		c.Channel = engine.ToolCall
	}
	if choices > 1 {
		c.Choice = n % choices
	}
	return c
}

// TestChunks: chunks of all kinds, without text, of several choices and channels, arrive as they were made, once, whatever
// happens to the workers; so do the engine's finish and usage.
func TestChunks(t *testing.T) {
	for _, choices := range []int{1, 2} {
		t.Run(fmt.Sprint(choices, " choices"), func(t *testing.T) {
			fast := func(cfg *config.Worker) { cfg.TokenInterval = 20 * time.Millisecond }
			stage(t, setup{engine: &thinker{}, worker: fast}, func(t *testing.T, s *scenario) {
				stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", Choices: uint32(choices), MaxTokens: 1000})
				if err != nil {
					t.Fatal(err)
				}
				tokens, swaps := 0, 0
				var done connswap.Done
				for event, err := range stream.Events() {
					switch e := event.(type) {
					case connswap.Token:
						want := chunkNumber(int(e.Sequence), choices, false)
						tokens += e.Tokens
						if e.Text != string(want.Text) || e.Choice != want.Choice || int(e.Channel) != int(want.Channel) || e.Tokens != want.Count() ||
							len(e.TokenIDs) != len(want.TokenIDs) || string(e.Data) != string(want.Data) {
							t.Errorf("got %+v, want %+v", e, want)
						}
						switch e.Sequence {
						case 30:
							p := s.worker(e.Worker)
							p.die(p.host.Kill)
							time.AfterFunc(300*time.Millisecond, p.restart)
						case 60:
							s.wg.Go(func() { _, _ = s.operate().Swap(s.ctx, s.conn.ID(), 1, "") }) // it shows in the events
						}
					case connswap.Swapped:
						swaps++
					case connswap.Done:
						done = e
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				want := connswap.Done{
					FinishReason: "tool_calls", Tokens: thoughtsOf, Swaps: swaps, Continuity: "exact", Digest: done.Digest,
					Usage: &connswap.Usage{Prompt: 3, Completion: uint64(tokens), Cached: 1, Reasoning: 2},
				}
				if choices > 1 {
					want.FinishReasons = []string{"tool_calls", "stop"}
				}
				if !reflect.DeepEqual(done, want) || swaps != 2 {
					t.Errorf("got %+v after %d swaps, want %+v", done, swaps, want)
				}
			})
		})
	}
}

// TestSlowOpening: an engine that takes a minute to get to where the stream is, and says how far it is, has that minute;
// client and operators see it. One that stops to get on dies soon.
func TestSlowOpening(t *testing.T) {
	var hangs atomic.Bool
	slow := func(ctx context.Context, after int, progress engine.Progress) error {
		if after == 0 {
			return nil
		}
		for at := range 600 {
			progress(at, 600)
			if at == 100 && hangs.CompareAndSwap(true, false) {
				<-ctx.Done()
				return ctx.Err()
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	for name, hang := range map[string]bool{"gets on": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			hangs.Store(hang)
			stage(t, setup{engine: &thinker{open: slow, plain: true}}, func(t *testing.T, s *scenario) {
				stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 1000})
				if err != nil {
					t.Fatal(err)
				}
				var text strings.Builder
				var recovering []connswap.Recovering
				var swapped connswap.Swapped
				restarts, lastAt := 0, time.Time{}
				for event, err := range stream.Events() {
					if err != nil {
						t.Fatal(err)
					}
					switch e := event.(type) {
					case connswap.Token:
						if e.Sequence == 10 {
							p := s.worker(e.Worker)
							p.die(p.host.Kill)
							time.AfterFunc(time.Second, p.restart)
						}
						text.WriteString(e.Text)
					case connswap.Recovering:
						if n := len(recovering); n > 0 && e.At < recovering[n-1].At {
							if pause := time.Since(lastAt); pause > 3*time.Second {
								t.Errorf("a hang was noticed after %v", pause)
							}
							restarts++
						}
						recovering, lastAt = append(recovering, e), time.Now()
						if e.At > 20 && e.At < 40 {
							s.seesRecovery(t)
						}
					case connswap.Swapped:
						swapped = e
					}
				}
				if len(recovering) < 30 || (restarts > 0) != hang {
					t.Errorf("recovering %d times, %d restarts", len(recovering), restarts)
				}
				if swapped.Gap < time.Minute || swapped.Gap > 90*time.Second {
					t.Errorf("the gap is %v", swapped.Gap)
				}
				for n := range thoughtsOf {
					if !strings.HasPrefix(text.String(), string(chunkNumber(1, 1, true).Text)) || !strings.Contains(text.String(), fmt.Sprint(n+1, " ")) {
						t.Fatalf("read %q", text.String())
					}
				}
			})
		})
	}
}

// seesRecovery fails unless operators see how far the next worker is.
func (s *scenario) seesRecovery(t *testing.T) {
	t.Helper()
	var all struct {
		Connections []struct {
			Streams []struct {
				Recovering *struct{ At, Of uint64 } `json:"recovering"`
			} `json:"streams"`
		} `json:"connections"`
	}
	if err := s.status("/v1/connections", &all); err != nil {
		t.Error(err)
		return
	}
	if r := all.Connections[0].Streams[0].Recovering; r == nil || r.Of != 600 || r.At == 0 {
		t.Errorf("operators see %+v", r)
	}
}

// TestStopStrings: a text ends before a stop string, also where that comes in pieces from two workers; of what may be one
// nothing is shown too early, and what was none comes.
func TestStopStrings(t *testing.T) {
	for name, test := range map[string]struct{ stop, end string }{
		"across chunks":       {"44 45", "43 "},
		"within one":          {"7", "6 "},
		"that never comes":    {"44 46", ""},
		"over a worker's end": {"31 32 33", "30 "},
	} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{engine: &thinker{plain: true}}, func(t *testing.T, s *scenario) {
				stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 1000, Stop: []string{test.stop, "never"}})
				if err != nil {
					t.Fatal(err)
				}
				var text strings.Builder
				var done connswap.Done
				for event, err := range stream.Events() {
					if err != nil {
						t.Fatal(err)
					}
					switch e := event.(type) {
					case connswap.Token:
						text.WriteString(e.Text)
						if e.Sequence == 29 {
							p := s.worker(e.Worker)
							time.AfterFunc(120*time.Millisecond, func() { p.die(p.host.Kill) }) // two or three chunks later
							time.AfterFunc(time.Second, p.restart)
						}
					case connswap.Done:
						done = e
					}
				}
				want, reason := "", "tool_calls"
				for n := range thoughtsOf {
					if want += string(chunkNumber(n+1, 1, true).Text); test.end != "" && strings.HasSuffix(" "+want, " "+test.end) {
						reason = "stop"
						break
					}
				}
				if text.String() != want || done.FinishReason != reason {
					t.Errorf("%s: %q, want %q", done.FinishReason, text.String(), want)
				}
				time.Sleep(time.Second)
				for _, w := range s.registered() {
					if w.Sessions > 0 {
						t.Errorf("%+v goes on", w)
					}
				}
			})
		})
	}
}
