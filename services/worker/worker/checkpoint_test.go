package worker_test

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// hold tells worker-b to keep what worker-a captured of session 1.
func (s *shown) hold(t *testing.T, epoch uint64) *wirepb.Hold {
	t.Helper()
	return &wirepb.Hold{From: s.one.Fetch(t, 1, epoch, 10, "worker-a", mgmtAddr, "worker-b"), SourceEpoch: 1}
}

// held waits for the answer to a Hold.
func held(t *testing.T, l *fakedirector.Link, code wire.Code) {
	t.Helper()
	m := fakedirector.Next[*wirepb.Held](t, l)
	want := uint64(10)
	if code != "" {
		want = 0
	}
	if m.GetSession() != 1 || m.GetSourceEpoch() != 1 || m.GetCode() != string(code) || m.GetSequence() != want {
		t.Errorf("got %v, want %q", m, code)
	}
}

// after is an Attach of session 1 with a prefix.
func after(epoch uint64, prefix [][]byte) *wirepb.Attach {
	m := attach(1, epoch, 30)
	m.Prefix = prefixOf(prefix)
	return m
}

// The worker of a session dies. A peer that keeps its checkpoint goes on from that, and so does any other.
func TestCheckpointAtAPeer(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	keeper, third := newSpy(t, cfg), newSpy(t, cfg)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{Engine: keeper})
		c := cfg
		c.Label = "worker-c"
		b.start(t, b.Net.Host(c.Label), c, worker.Deps{Engine: third})
		s := b.source(t)
		lb := s.one.Open(t, b.World, b.from, otherUserAddr)
		lc := s.one.Open(t, b.World, b.from, "worker-c:62001")
		lb.Send(t, s.hold(t, 2))
		held(t, lb, "")
		if a, b := b.status(t).SnapshotBytes, b.statusOf(t, otherMgmtAddr).SnapshotBytes; a != 0 || b == 0 {
			t.Errorf("%d bytes at the source, %d at the peer", a, b)
		}
		b.host.Isolate()

		m := after(2, whole[:17])
		m.Checkpoint = s.one.Fetch(t, 1, 2, 10, "worker-b", otherMgmtAddr, "worker-b")
		lb.Send(t, m)
		remaining, _ := stream(t, lb, 1, 2, whole[:17])
		sameText(t, remaining, whole[17:])
		keeper.began(t, 0, 1)
		if counts := b.statusOf(t, otherMgmtAddr).MigrationTokens; counts.Accepted != 0 {
			t.Errorf("it pulled from itself: %v", counts)
		}

		m = after(3, whole[:20])
		m.Checkpoint = s.one.Fetch(t, 1, 3, 10, "worker-b", otherMgmtAddr, "worker-c")
		lc.Send(t, m)
		remaining, _ = stream(t, lc, 1, 3, whole[:20])
		sameText(t, remaining, whole[20:])
		third.began(t, 0, 1)
		if b.statusOf(t, otherMgmtAddr).SnapshotBytes == 0 {
			t.Error("the checkpoint is gone: it was pulled, but not discarded")
		}
		lb.Send(t, &wirepb.Discard{Session: 1}) // of what it made itself
		time.Sleep(time.Second)
		if b.statusOf(t, otherMgmtAddr).SnapshotBytes == 0 {
			t.Error("the checkpoint is gone with what the peer had captured itself")
		}
		lb.Send(t, &wirepb.Discard{Session: 1, Checkpoint: true})
		time.Sleep(time.Second)
		if held := b.statusOf(t, otherMgmtAddr).SnapshotBytes; held != 0 {
			t.Errorf("%d bytes are kept", held)
		}
		b.host.Rejoin()
		s.link.Close()
		lb.Close()
		lc.Close()
	})
}

// A standby on the worker that keeps the checkpoint needs no pull either.
func TestStandbyFromAKeptCheckpoint(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{})
		s := b.source(t)
		lb := s.one.Open(t, b.World, b.from, otherUserAddr)
		lb.Send(t, s.hold(t, 2))
		held(t, lb, "")
		b.host.Isolate()
		lb.Send(t, s.one.Standby(t, after(2, whole[:12]), "worker-b"))
		prepared(t, lb, 1, 2, 12)
		lb.Send(t, &wirepb.Fetch{Session: 1, Epoch: 2, Sequence: 10})
		prepared(t, lb, 1, 2, 12)
		lb.Send(t, fakedirector.Pivot(1, 2, 12, whole[:13]))
		remaining, _ := stream(t, lb, 1, 2, whole[:13])
		sameText(t, remaining, whole[13:])
		b.host.Rejoin()
		s.link.Close()
		lb.Close()
	})
}

// What a worker keeps may be another checkpoint than the one that the director means.
func TestKeptCheckpointOfAnotherMoment(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	keeper := newSpy(t, cfg)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{Engine: keeper})
		s := b.source(t)
		b.mgmt.Offer(t, s.one, 1, captured(t, cfg, 5, 5))
		lb := s.one.Open(t, b.World, b.from, otherUserAddr)
		lb.Send(t, s.hold(t, 2))
		held(t, lb, "")
		m := after(2, whole[:7])
		m.Checkpoint = s.one.Fetch(t, 1, 2, 5, "director-1", fakedirector.MgmtAddr, "worker-b")
		m.Checkpoint.AtDirector = true
		lb.Send(t, m)
		remaining, _ := stream(t, lb, 1, 2, whole[:7])
		sameText(t, remaining, whole[7:])
		keeper.began(t, 0, 1)
		s.link.Close()
		lb.Close()
	})
}

func TestHoldOfWhatCannotBeHad(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, b *bench, s *shown, m *wirepb.Hold)
		most   int // CONNECTION_SWAP_WORKER_MAX_SNAPSHOT_BYTES of the peer
		state  int // CONNECTION_SWAP_MAX_STATE_BYTES of the peer
		want   wire.Code
	}{
		"discarded": {func(t *testing.T, _ *bench, s *shown, _ *wirepb.Hold) {
			s.link.Send(t, &wirepb.Discard{Session: 1})
			time.Sleep(time.Second)
		}, 1 << 30, wire.MaxState, wire.CodeStateGone},
		"too large":    {func(*testing.T, *bench, *shown, *wirepb.Hold) {}, 1 << 30, 300<<10 - 1, wire.CodeLimit},
		"no room":      {func(*testing.T, *bench, *shown, *wirepb.Hold) {}, 1 << 10, wire.MaxState, wire.CodeCapacity},
		"no token":     {func(_ *testing.T, _ *bench, _ *shown, m *wirepb.Hold) { m.From.Token = nil }, 1 << 30, wire.MaxState, wire.CodeTokenMissing},
		"no patience":  {func(_ *testing.T, _ *bench, _ *shown, m *wirepb.Hold) { m.From.TimeoutMs = 0 }, 1 << 30, wire.MaxState, wire.CodeStateGone},
		"out of reach": {func(_ *testing.T, b *bench, _ *shown, _ *wirepb.Hold) { b.host.Isolate() }, 1 << 30, wire.MaxState, wire.CodeStateGone},
		"nowhere":      {func(_ *testing.T, _ *bench, _ *shown, m *wirepb.Hold) { m.From.Addr = "" }, 1 << 30, wire.MaxState, wire.CodeStateGone},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := planned("stateful")
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				cfg.MaxSnapshotBytes, cfg.MaxStateBytes = c.most, c.state
				b.second(t, cfg, worker.Deps{})
				s := b.source(t)
				lb := s.one.Open(t, b.World, b.from, otherUserAddr)
				m := s.hold(t, 2)
				m.From.TimeoutMs = 20_000
				c.change(t, b, s, m)
				lb.Send(t, m)
				held(t, lb, c.want)
				if held := b.statusOf(t, otherMgmtAddr).SnapshotBytes; held != 0 {
					t.Errorf("%d bytes are kept", held)
				}
				b.host.Rejoin()
				s.link.Close()
				lb.Close()
			})
		})
	}
}

// A checkpoint that nobody renews or discards is given up: its director is gone.
func TestCheckpointsAreNotKeptForEver(t *testing.T) {
	cfg := planned("stateful")
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{})
		hold := func(epoch uint64) {
			s := b.source(t)
			l := s.one.Open(t, b.World, b.from, otherUserAddr)
			l.Send(t, s.hold(t, epoch))
			held(t, l, "")
			l.Close()
			s.link.Close()
		}
		hold(2)
		one := b.statusOf(t, otherMgmtAddr).SnapshotBytes
		time.Sleep(9 * time.Minute)
		hold(3)
		time.Sleep(9 * time.Minute)
		if kept := b.statusOf(t, otherMgmtAddr).SnapshotBytes; kept != one {
			t.Errorf("%d bytes after it was renewed, one has %d", kept, one)
		}
		time.Sleep(2 * time.Minute)
		if kept := b.statusOf(t, otherMgmtAddr).SnapshotBytes; kept != 0 {
			t.Errorf("%d bytes are kept", kept)
		}
	})
}

// A checkpoint that is of no use, or cannot be had, costs time and not the text.
func TestTakeoverWithABadCheckpoint(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	for name, c := range badStates {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			cfg.MaxStateBytes = c.most
			spy := newSpy(t, cfg)
			run(t, cfg, worker.Deps{Engine: spy}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				b.mgmt.Offer(t, p, 2, captured(t, cfg, 10, 10))
				if c.snapshot != nil {
					b.mgmt.Offer(t, p, 1, c.snapshot(t, cfg))
				}
				l := p.Open(t, b.World, b.from, userAddr)
				m := after(2, whole[:12])
				m.Checkpoint = p.AtDirector(t, 1, 2, 10)
				l.Send(t, m)
				remaining, _ := stream(t, l, 1, 2, whole[:12])
				sameText(t, remaining, whole[12:])
				if n := spy.opened.Load(); n != 1 {
					t.Errorf("started over %d times", n)
				}
				l.Close()
			})
			if n := spy.open.Load(); n != 0 {
				t.Errorf("%d generations were not closed", n)
			}
		})
	}
}

func TestTakeoverWithACheckpointOutOfReach(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		nobody := b.Net.Host("worker-b")
		nobody.Isolate()
		l := p.Open(t, b.World, b.from, userAddr)
		m := after(2, whole[:12])
		m.Checkpoint = p.Fetch(t, 1, 2, 10, "worker-b", otherMgmtAddr, "worker-a")
		m.Checkpoint.TimeoutMs = 2_000
		start := time.Now()
		l.Send(t, m)
		remaining, _ := stream(t, l, 1, 2, whole[:12])
		sameText(t, remaining, whole[12:])
		if took := time.Since(start).Round(time.Second); took != 2*time.Second {
			t.Errorf("gave up after %v", took)
		}
		m.Epoch, m.Checkpoint.TimeoutMs = 3, 60_000
		l.Send(t, m)
		silent(t, l, time.Second)
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 3}) // ends the pull, and starts nothing over
		silent(t, l, 2*time.Minute)
		b.idle(t, mgmtAddr)
		l.Close()
	})
}

// An engine without a state has no use for one, wherever the director says that it is.
func TestTakeoverWithAnUnneededCheckpoint(t *testing.T) {
	cfg := planned("markov")
	whole := undisturbed(t, cfg, 30)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := p.Open(t, b.World, b.from, userAddr)
		m := after(2, whole[:12])
		m.Checkpoint = p.Fetch(t, 1, 2, 10, "worker-b", otherMgmtAddr, "worker-a")
		l.Send(t, m)
		remaining, _ := stream(t, l, 1, 2, whole[:12])
		sameText(t, remaining, whole[12:])
		l.Close()
	})
}
