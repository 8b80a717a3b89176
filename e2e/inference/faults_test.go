package inference

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

// fault is what happens to a worker or its server, and how that is made whole again.
type fault struct {
	calm    bool // the stream may end where it is before it has been moved
	happens func(s *system, label string)
	mend    func(s *system, label string)
}

var faults = map[string]fault{
	"runner killed": {
		happens: func(s *system, label string) { s.servers[label].killRunners() },
		mend:    func(*system, string) {}, // the server starts another one
	},
	"runner stopped": { // its server says that all is well
		happens: func(s *system, label string) { s.servers[label].signalRunners(syscall.SIGSTOP) },
		mend:    func(s *system, label string) { s.servers[label].signalRunners(syscall.SIGCONT) },
	},
	"server killed": {
		happens: func(s *system, label string) { s.servers[label].kill() },
		mend:    func(s *system, label string) { s.servers[label].start() },
	},
	"server stopped": {
		happens: func(s *system, label string) { s.servers[label].signal(syscall.SIGSTOP) },
		mend:    func(s *system, label string) { s.servers[label].signal(syscall.SIGCONT) },
	},
	"network cut": {
		happens: func(s *system, label string) { s.servers[label].path.breakOff() },
		mend:    func(s *system, label string) { s.servers[label].path.mend() },
	},
	"worker asked to stop": {
		calm: true,
		happens: func(s *system, label string) {
			require.NoError(s, s.Workers[label].Process.Signal(syscall.SIGTERM))
			began := time.Now()
			go func() {
				_ = s.Workers[label].Wait()
				s.Logf("the worker was gone %v after it was asked to", time.Since(began).Round(time.Millisecond))
			}()
		},
		mend: func(s *system, label string) {
			_ = cluster.Kill(s.Workers[label])
			s.work(label)
		},
	},
	"worker killed": {
		happens: func(s *system, label string) { _ = cluster.Kill(s.Workers[label]) },
		mend:    func(s *system, label string) { s.work(label) },
	},
}

// TestFaults has streams survive whatever happens to a server or its worker, at several cuts: text, finish and usage are those of the
// undisturbed run, and the client is told how it was. When it is whole again the server is used again, without a new start of its worker.
func TestFaults(t *testing.T) {
	s := startSystem(t, []*server{startServer(t), startServer(t)}, "chat")
	asks := []ask{
		{model: "chat", tokens: 200, temperature: 0.8, seed: 7},
		{model: "chat", chat: true, tokens: 200, seed: 1},
		{model: "chat", chat: true, tokens: 200, temperature: 0.8, seed: 3},
	}
	whole := make([]got, len(asks))
	for i, a := range asks {
		whole[i] = s.read(a, nil)
		require.NoError(t, whole[i].err)
		require.Equal(t, []any{"verified", "exact", 0, int64(200)}, []any{whole[i].continuity, whole[i].resumed, whole[i].swaps, whole[i].all})
	}
	t.Run("native", s.native)
	t.Run("rejected", s.rejected)
	t.Run("killed while it moves", s.killedWhileItMoves)
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			for i, cut := range []int{2, 100, 190} {
				s.survive(t, f, asks[i], cut, whole[i])
			}
		})
	}
}

// survive has a fault happen behind so many pieces of an answer, and be mended.
func (s *system) survive(t *testing.T, f fault, a ask, cut int, want got) {
	t.Helper()
	g := s.read(a, func(n int, worker string) {
		if n == cut {
			f.happens(s, worker)
		}
	})
	t.Logf("at piece %d of %d: %v of pause, %s", cut, g.pieces, g.gap.Round(time.Millisecond), g.resumed)
	g.same(t, want)
	if !f.calm || g.swaps > 0 {
		require.Equal(t, []any{1, "verified"}, []any{g.swaps, g.resumed})
	}
	f.mend(s, g.worker)
	require.NoError(t, s.Await(context.Background(), g.worker), "it is not used again")
	used := []string(nil)
	for _, short := range s.many(4, ask{model: a.model, tokens: 8}, 0, nil) {
		require.NoError(t, short.err)
		used = append(used, short.worker)
	}
	require.Contains(t, used, g.worker, "no stream was given to it")
}

// killedWhileItMoves has a worker be asked to stop, and killed before its stream has been moved, as a container is whose time is up: what
// the next one has made again by then is not made a third time.
func (s *system) killedWhileItMoves(t *testing.T) {
	a := ask{model: "chat", tokens: 500, temperature: 0.8, seed: 11}
	const cut = 100
	want := s.read(a, nil)
	killed := make(chan error, 1)
	g := s.read(a, func(n int, worker string) {
		if n == cut {
			faults["worker asked to stop"].happens(s, worker)
			go func() { killed <- s.killMoving(worker, cut+1) }()
		}
	})
	require.NoError(t, <-killed)
	defer s.work(g.worker)
	g.same(t, want)
	require.Equal(t, 1, g.swaps)
	t.Logf("%v of pause", g.gap.Round(time.Millisecond))
	var status struct {
		Swaps []struct {
			Kind, State string
			Epoch       uint64
		}
	}
	require.NoError(t, s.Status("/v1/swaps", &status))
	require.NotEmpty(t, status.Swaps)
	last := status.Swaps[len(status.Swaps)-1]
	require.Equal(t, []any{"failover", "Completed"}, []any{last.Kind, last.State})
	require.Equal(t, uint64(2), last.Epoch, "the one that was on its way did not go on")
}

// killMoving kills a worker when the one that is to have its stream has got behind so many tokens, or more.
func (s *system) killMoving(label string, of uint64) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		var status struct {
			Sessions []struct {
				Recovering *struct{ At, Of uint64 }
			}
		}
		if err := s.Status("/v1/sessions?state=streaming", &status); err != nil {
			return err
		}
		for _, one := range status.Sessions {
			if r := one.Recovering; r != nil && r.Of > of && r.At < r.Of {
				return cluster.Kill(s.Workers[label])
			}
		}
	}
	return errors.New("no stream is on its way to another worker")
}

// TestManyAtOnce loses a server, and a runner, under ten streams, drawn and greedy ones, which have characters of several tokens.
func TestManyAtOnce(t *testing.T) {
	s := startSystem(t, []*server{startServer(t, "OLLAMA_NUM_PARALLEL=10"), startServer(t, "OLLAMA_NUM_PARALLEL=10")}, "utf8")
	for name, one := range map[string]struct {
		ask
		after int
	}{
		"server killed": {ask{model: "utf8", tokens: 400, temperature: 0.8, seed: 100}, 100},
		"runner killed": {ask{model: "utf8", chat: true, tokens: 400, seed: 200}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			want := s.many(10, one.ask, 0, nil)
			hit := ""
			all := s.many(10, one.ask, one.after, func(worker string) {
				hit = worker
				faults[name].happens(s, worker)
			})
			swaps, longest := 0, time.Duration(0)
			for i, g := range all {
				g.same(t, want[i])
				swaps, longest = swaps+g.swaps, max(longest, g.gap)
			}
			t.Logf("%d swaps, longest pause %v", swaps, longest.Round(time.Millisecond))
			require.Positive(t, swaps)
			faults[name].mend(s, hit)
			require.NoError(t, s.Await(context.Background(), hit))
		})
	}
}
