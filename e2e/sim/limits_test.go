package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// TestDrainKeepsWithinItsLimits empties a worker onto a small one and a large one, a few sessions at a time, with few
// migration tokens to a second. Nothing is ever above its limit, and all arrive.
func TestDrainKeepsWithinItsLimits(t *testing.T) {
	const streams, small, perTarget, atOnce, rate = 60, 15, 3, 5, 20
	s := setup{
		director: func(cfg *config.Director) {
			cfg.MaxConcurrentSwaps, cfg.MaxSwapsPerTarget, cfg.TokenRate = atOnce, perTarget, rate
		},
		worker: func(cfg *config.Worker) {
			if cfg.Label == "worker-1" {
				cfg.Capacity = small
			}
		},
	}
	stage(t, s, func(t *testing.T, s *scenario) {
		op := s.operate()
		var reading sync.WaitGroup
		defer reading.Wait()
		for range streams {
			reading.Go(func() {
				if o := s.generate(400, nil); o.err != nil || o.text != counted(400) {
					t.Errorf("%d tokens, %v", o.tokens, o.err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond) // in the bubble
		s.work(func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = interval, "counter" })
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(s.ctx)
		var watching sync.WaitGroup
		watching.Go(func() { s.withinLimits(ctx, map[string]int{"worker-1": small}, perTarget, atOnce) })
		moves, err := op.Drain(s.ctx, "worker-0", time.Minute, false, nil)
		cancel()
		watching.Wait()
		if err != nil || moves.Moved != streams-small { // the rest was there already
			t.Errorf("%+v, %v", moves, err)
		}
	})
}

// withinLimits looks all the time whether limits are kept.
func (s *scenario) withinLimits(ctx context.Context, capacity map[string]int, perTarget, atOnce int) {
	op := s.operate()
	for ctx.Err() == nil {
		status, err := op.Status(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.t.Error(err)
			}
			return
		}
		for _, w := range status.Workers {
			if most := capacity[w.Worker]; most > 0 && w.Sessions > most || w.Incoming > perTarget {
				s.t.Errorf("%+v", w)
			}
		}
		granted := slices.DeleteFunc(status.Swaps, func(r migration.Record) bool { return r.State == "Initiating" })
		if len(granted) > atOnce {
			s.t.Errorf("%d swaps are under way, allowed are %d", len(granted), atOnce)
		}
		s.sleep(3 * time.Millisecond)
	}
}

// TestOrderOfSwaps drains one session at a time: older ones go first, to the second, and of these the more important.
func TestOrderOfSwaps(t *testing.T) {
	s := setup{director: func(cfg *config.Director) { cfg.MaxConcurrentSwaps = 1 }}
	stage(t, s, func(t *testing.T, s *scenario) {
		op := s.operate()
		other := s.workers[1]
		other.die(other.host.Kill)
		var reading sync.WaitGroup
		defer reading.Wait()
		open := func(priorities ...uint8) {
			for _, priority := range priorities {
				stream, err := s.conn.Generate(s.ctx, connswap.Request{MaxTokens: 400, Priority: priority})
				if err != nil {
					t.Fatal(err)
				}
				reading.Go(func() { readStream(stream, nil) })
				time.Sleep(time.Millisecond) // in the bubble
			}
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + 50*time.Millisecond)))
		open(1, 9, 1)
		time.Sleep(time.Second)
		open(5, 7)
		other.restart()
		time.Sleep(time.Second)
		if _, err := op.Drain(s.ctx, "worker-0", time.Minute, false, nil); err != nil {
			t.Error(err)
		}
		var over struct{ Swaps []migration.Record }
		if err := s.status("/v1/swaps", &over); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(over.Swaps, func(a, b migration.Record) int { return cmp.Compare(a.Started.UnixNano(), b.Started.UnixNano()) })
		var order []uint64
		for _, r := range over.Swaps {
			order = append(order, r.StreamID)
		}
		if want := []uint64{2, 1, 3, 5, 4}; !slices.Equal(order, want) {
			t.Errorf("moved in the order %v, want %v", order, want)
		}
	})
}

// TestWhoMayOperate asks with each kind of certificate. Only an operator's counts, and the director says so to its log.
func TestWhoMayOperate(t *testing.T) {
	for _, role := range []identity.Role{identity.Worker, identity.Client, identity.Director} {
		t.Run(string(role), func(t *testing.T) {
			stage(t, setup{}, func(t *testing.T, s *scenario) {
				refusals := s.logged.count("refused")
				op, err := operator.Dial(s.ctx, "director:61001", operator.Options{TLS: s.sources[role], Network: s.net.Host("somebody")})
				if err == nil {
					defer op.Close() //nolint:errcheck // the run is over
					_, err = op.Drain(s.ctx, "worker-0", time.Minute, false, nil)
				}
				if !errors.Is(err, &wire.Error{Code: wire.CodeUnauthorized}) {
					t.Errorf("told %v", err)
				}
				s.sleep(time.Second)
				if s.logged.count("refused") != refusals+1 {
					t.Error("the director has not logged that")
				}
				if status, err := s.operate().Status(s.ctx); err != nil || status.Workers[0].Draining {
					t.Errorf("%+v, %v", status.Workers, err)
				}
			})
		})
	}
}
