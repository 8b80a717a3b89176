package sim

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// operate connects an operator until the scenario ends.
func (s *scenario) operate() *operator.Client {
	s.t.Helper()
	c, err := operator.Dial(s.ctx, "director:61001", operator.Options{TLS: s.sources[identity.Operator], Network: s.net.Host("operator")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() }) //nolint:errcheck // the run is over
	return c
}

// engines of the tests below: one without a state, one with.
var engineSetups = map[string]func(*config.Worker){
	"counter": func(cfg *config.Worker) { cfg.Engine = "counter" },
	"markov":  func(cfg *config.Worker) { cfg.Engine = "markov" },
	"stateful": func(cfg *config.Worker) {
		cfg.Engine, cfg.StateBytes = "stateful", 100_000
	},
}

// reference is the text of a generation without faults.
func (s *scenario) reference(tokens int) string {
	s.t.Helper()
	e, err := worker.EngineOf(s.workers[0].cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := textOf(e, engine.Request{Prompt: "p", Seed: 7, MaxTokens: tokens})
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// TestOperatorSwaps moves a stream back and forth: no token is late, none is lost, and the record tells how it went.
func TestOperatorSwaps(t *testing.T) {
	const tokens, every = 60, 10
	for name, configure := range engineSetups {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{worker: configure}, func(t *testing.T, s *scenario) {
				op := s.operate()
				last, longest := time.Time{}, time.Duration(0)
				o := s.generate(tokens, func(sequence uint64, at string) {
					if now := time.Now(); sequence > 1 {
						longest = max(longest, now.Sub(last))
					}
					last = time.Now()
					if sequence%every == 0 && sequence < tokens {
						s.wg.Go(func() {
							record, err := op.Swap(s.ctx, s.conn.ID(), 0, "")
							if err != nil || record.State != "Completed" || record.From != at || record.GapMS > 5 {
								t.Errorf("swap at %d: %+v, %v", sequence, record, err)
							}
						})
					}
				})
				if o.err != nil || o.text != s.reference(tokens) || len(o.swaps) != tokens/every-1 {
					t.Errorf("%d tokens, %d swaps, %v", o.tokens, len(o.swaps), o.err)
				}
				for _, swap := range o.swaps {
					if swap.Kind != "planned" || swap.Cause != "operator" {
						t.Errorf("%+v", swap)
					}
				}
				if longest > interval+5*time.Millisecond {
					t.Errorf("a token came after %v, the interval is %v", longest, interval)
				}
			})
		})
	}
}

// TestDrain empties a worker with many streams, and then the other one is the last.
func TestDrain(t *testing.T) {
	const streams, tokens = 100, 60
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		op := s.operate()
		var running sync.WaitGroup
		for range streams {
			running.Go(func() {
				if o := s.generate(tokens, nil); o.err != nil || o.text != counted(tokens) {
					t.Errorf("%d tokens, %v", o.tokens, o.err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond) // in the bubble
		var heard []operator.Moves
		moves, err := op.Drain(s.ctx, "worker-0", time.Minute, false, func(m operator.Moves) { heard = append(heard, m) })
		if err != nil || moves.Moved != streams/2 || moves.Remaining != 0 || moves.Failed != 0 || len(heard) == 0 {
			t.Errorf("%+v, %v, progress %+v", moves, err, heard)
		}
		if n := s.workers[0].sessions(); n != 0 {
			t.Errorf("%d sessions are on the drained worker", n)
		}
		if _, err := op.Drain(s.ctx, "worker-1", time.Minute, false, nil); !errors.Is(err, &connswap.Error{Code: "no_worker"}) {
			t.Errorf("draining the last worker: %v", err)
		}
		if o := s.generate(3, nil); o.err != nil || o.workers[0] != "worker-1" {
			t.Errorf("a new stream while worker-0 is drained: %+v", o)
		}
		if err := op.Undrain(s.ctx, "worker-0"); err != nil {
			t.Error(err)
		}
		moves, err = op.Rebalance(s.ctx, nil)
		if a, b := s.workers[0].sessions(), s.workers[1].sessions(); err != nil || a != b || a != streams/2 {
			t.Errorf("rebalanced to %d and %d: %+v, %v", a, b, moves, err)
		}
		running.Wait()
	})
}

// TestForcedDrainOfTheLast says what is in the way, and goes on when there is a place to go to.
func TestForcedDrainOfTheLast(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		op := s.operate()
		other := s.workers[1]
		other.die(other.host.Kill)
		var reading sync.WaitGroup
		defer reading.Wait()
		reading.Go(func() {
			if o := s.generate(300, nil); o.err != nil || len(o.swaps) != 1 {
				t.Errorf("%+v", o)
			}
		})
		time.Sleep(time.Second) // in the bubble
		_, err := op.Drain(s.ctx, "worker-0", 2*time.Second, true, nil)
		if err == nil || !strings.Contains(err.Error(), "1 stream still on worker-0") || !strings.Contains(err.Error(), "no other") {
			t.Errorf("got %v", err)
		}
		other.restart()
		time.Sleep(time.Second) // in the bubble: until it is connected
		if _, err := op.Drain(s.ctx, "worker-0", 10*time.Second, false, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestStoppedWorkersAreDrained stops workers in turn, as docker stop does: their streams are gone before they are.
func TestStoppedWorkersAreDrained(t *testing.T) {
	const tokens = 200
	for name, configure := range engineSetups {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{worker: configure}, func(t *testing.T, s *scenario) {
				stopping := 0
				var longest time.Duration
				last := time.Now()
				o := s.generate(tokens, func(sequence uint64, at string) {
					longest = max(longest, time.Since(last))
					last = time.Now()
					if sequence%50 == 25 {
						stopping++
						p := s.worker(at)
						s.wg.Go(func() { p.stop(); p.restart() })
					}
				})
				if o.err != nil || o.text != s.reference(tokens) || len(o.swaps) != stopping {
					t.Errorf("%d tokens, %+v after %d shutdowns, %v", o.tokens, o.swaps, stopping, o.err)
				}
				if longest > interval+5*time.Millisecond {
					t.Errorf("a token came after %v", longest)
				}
			})
		})
	}
}

// TestCheckpoint kills the worker of a stateful stream: it goes on from the newest checkpoint, or from the beginning.
func TestCheckpoint(t *testing.T) {
	const tokens = 100
	for name, configure := range map[string]func(*config.Director){
		"at the director": func(cfg *config.Director) { cfg.CheckpointInterval = 500 * time.Millisecond },
		"at a peer":       func(cfg *config.Director) { cfg.CheckpointInterval, cfg.CheckpointPlace = 500*time.Millisecond, "peer" },
		"none":            func(cfg *config.Director) { cfg.CheckpointInterval = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{director: configure, worker: engineSetups["stateful"]}, func(t *testing.T, s *scenario) {
				o := s.generate(tokens, func(sequence uint64, at string) {
					if sequence == 50 {
						p := s.worker(at)
						p.die(p.host.Kill)
					}
				})
				if o.err != nil || o.text != s.reference(tokens) || len(o.swaps) != 1 {
					t.Errorf("%d tokens, %+v, %v", o.tokens, o.swaps, o.err)
				}
			})
		})
	}
}
