package worker_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// leaving is the configuration of a worker that makes a token each second.
func leaving() config.Worker {
	cfg := settings()
	cfg.TokenInterval = time.Second
	return cfg
}

// left fails unless the worker has left after that time, to the tenth of a second.
func (b *bench) left(t *testing.T, start time.Time, after time.Duration) {
	t.Helper()
	b.done <- <-b.done
	if took := time.Since(start).Round(100 * time.Millisecond); took != after {
		t.Errorf("left after %v, want %v", took, after)
	}
}

// stays fails if the worker leaves within d.
func (b *bench) stays(t *testing.T, d time.Duration) {
	t.Helper()
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case err := <-b.done:
		t.Fatalf("left: %v", err)
	case <-timeout.C:
	}
}

// status reads what a worker says of itself.
func status(t *testing.T, l *fakedirector.Link, available, failed, draining bool) {
	t.Helper()
	for {
		event := fakedirector.Next[any](t, l)
		if _, ok := event.(wire.Chunk); ok {
			continue
		}
		m, ok := event.(*wirepb.WorkerStatus)
		if !ok || m.GetAvailable() != available || m.GetFailed() != failed || m.GetDraining() != draining || m.GetReason() == "" {
			t.Errorf("got %v, want available %v, failed %v, draining %v", event, available, failed, draining)
		}
		return
	}
}

// parting reads what a director gets of a worker that leaves, and closes the link as a director does.
func parting(t *testing.T, l *fakedirector.Link) {
	t.Helper()
	status(t, l, false, true, false)
	l.Ended(t)
	l.Close()
}

// The worker asks to be emptied, takes nothing new, serves on, and leaves when the last session has gone.
func TestDrain(t *testing.T) {
	run(t, leaving(), worker.Deps{}, func(t *testing.T, b *bench) {
		p, other := fakedirector.NewPlanner("one"), fakedirector.NewPlanner("other")
		l := p.Open(t, b.World, b.from, userAddr)
		idle := other.Open(t, b.World, b.Net.Host("director-2"), userAddr)
		<-b.mgmt.Heartbeats
		l.Send(t, attach(1, 1, 0), p.Standby(t, attach(2, 2, 0), "worker-a"))
		fakedirector.Next[any](t, l) // Begin, Prepared, and the first token, in any order
		fakedirector.Next[any](t, l)
		fakedirector.Next[any](t, l)
		b.stop()
		status(t, l, false, false, true)
		status(t, idle, false, false, true)
		l.Send(t, attach(3, 1, 0))
		refused(t, l, 3, 1, wire.CodeUnavailable)
		l.Send(t, p.Standby(t, attach(4, 2, 0), "worker-a"))
		refused(t, l, 4, 2, wire.CodeUnavailable)
		late := fakedirector.NewPlanner("late")
		hello := late.Hello()
		hello.Tether = ""
		newcomer := b.Dial(t, b.Net.Host("director-3"), userAddr, hello)
		if welcome := fakedirector.Next[*wirepb.LinkWelcome](t, newcomer); welcome.GetAvailable() {
			t.Error("a new link is told that the worker is available")
		}
		if code, body := b.get(t, "/readyz"); code == http.StatusOK || !strings.Contains(body, "shutting down") {
			t.Errorf("ready: %d %q", code, body)
		}
		if s := b.status(t); s.Available || len(s.Sessions) != 2 || s.Directors != 1 {
			t.Errorf("got %+v", s)
		}
		for len(b.mgmt.Heartbeats) > 0 {
			<-b.mgmt.Heartbeats
		}
		if at, _ := arrivals(l, 10*time.Second); len(at) < 9 {
			t.Errorf("%d tokens in ten seconds", len(at))
		}
		if len(b.mgmt.Heartbeats) == 0 {
			t.Error("no heartbeats")
		}
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		b.stays(t, time.Second)
		start := time.Now()
		l.Send(t, &wirepb.Cancel{Session: 2, Epoch: 2})
		for _, l := range []*fakedirector.Link{l, idle, newcomer} {
			parting(t, l)
		}
		b.left(t, start, 0)
	})
}

func TestDrainOfAnIdleWorker(t *testing.T) {
	run(t, leaving(), worker.Deps{}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		start := time.Now()
		b.stop()
		status(t, l, false, false, true)
		parting(t, l)
		b.left(t, start, 0)
	})
	run(t, leaving(), worker.Deps{}, func(t *testing.T, b *bench) { // without directors, at that
		b.mgmt.Close()
		time.Sleep(time.Minute)
		start := time.Now()
		b.stop()
		b.left(t, start, 0)
		b.mgmt = b.Listen(t, b.from)
	})
}

// A session that completes is gone as well.
func TestDrainWaitsForTheEndOfAText(t *testing.T) {
	run(t, leaving(), worker.Deps{}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		l.Send(t, attach(1, 1, 8))
		fakedirector.Next[*wirepb.Begin](t, l)
		start := time.Now()
		b.stop()
		var tokens [][]byte
		hear[*wirepb.WorkerStatus](t, l, &tokens)
		hearTokens(t, l, &tokens, 7)
		last := []any{fakedirector.Next[any](t, l), fakedirector.Next[any](t, l), fakedirector.Next[any](t, l)} // on two streams
		if len(only[wire.Chunk](last)) != 1 || len(only[*wirepb.End](last)) != 1 || len(only[*wirepb.WorkerStatus](last)) != 1 {
			t.Errorf("got %v", last)
		}
		l.Ended(t)
		l.Close()
		b.left(t, start, 7*time.Second)
	})
}

// A director that does not move its sessions keeps the worker only for so long.
func TestDrainTimeout(t *testing.T) {
	cfg := leaving()
	cfg.DrainTimeout = 7 * time.Second
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		l.Send(t, attach(1, 1, 0))
		fakedirector.Next[*wirepb.Begin](t, l)
		start := time.Now()
		b.stop()
		status(t, l, false, false, true)
		parting(t, l)
		b.left(t, start, cfg.DrainTimeout)
	})
}

func TestDirectorGoneDuringADrain(t *testing.T) {
	cases := map[string]struct {
		lose func(b *bench, l *fakedirector.Link)
		want time.Duration
	}{
		"closed":  {func(_ *bench, l *fakedirector.Link) { l.Close() }, 0},
		"cut off": {func(b *bench, _ *fakedirector.Link) { b.from.Isolate() }, 31 * time.Second}, // and a second for a goodbye
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := leaving()
			cfg.DrainTimeout = time.Minute
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
				l.Send(t, attach(1, 1, 0))
				fakedirector.Next[*wirepb.Begin](t, l)
				b.stop()
				status(t, l, false, false, true)
				b.stays(t, 5*time.Second)
				start := time.Now()
				c.lose(b, l)
				b.done <- <-b.done
				if took := time.Since(start); took > c.want+100*time.Millisecond {
					t.Errorf("left after %v", took)
				}
				b.from.Rejoin()
				l.Close()
			})
		})
	}
}

// A director that lost its link and comes back during the drain has lost its sessions too.
func TestNewLinkDuringADrain(t *testing.T) {
	run(t, leaving(), worker.Deps{}, func(t *testing.T, b *bench) {
		p, other := fakedirector.NewPlanner("one"), fakedirector.NewPlanner("other")
		l := p.Open(t, b.World, b.from, userAddr)
		stays := other.Open(t, b.World, b.Net.Host("director-2"), userAddr)
		for i, l := range []*fakedirector.Link{l, stays} {
			l.Send(t, of(fmt.Sprint("conn-", i+1), attach(1, 1, 0)))
			fakedirector.Next[*wirepb.Begin](t, l)
		}
		b.stop()
		status(t, l, false, false, true)
		status(t, stays, false, false, true)
		again := b.Dial(t, b.from, userAddr, p.Hello())
		if welcome := fakedirector.Next[*wirepb.LinkWelcome](t, again); welcome.GetAvailable() {
			t.Errorf("got %v", welcome)
		}
		again.Send(t, attach(1, 2, 0))
		refused(t, again, 1, 2, wire.CodeUnavailable)
		if s := b.status(t); len(s.Sessions) != 1 {
			t.Errorf("got %+v", s.Sessions)
		}
		start := time.Now()
		stays.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		parting(t, stays)
		parting(t, again)
		b.left(t, start, 0)
		l.Close()
	})
}

// A worker that recovers from a simulated failure while it leaves does not say that it is available.
func TestNoRecoveryDuringADrain(t *testing.T) {
	failing := failing("error")
	failing.DrainTimeout = time.Minute
	t.Run("it fails, then drains", func(t *testing.T) {
		run(t, failing, worker.Deps{}, func(t *testing.T, b *bench) {
			l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
			b.worker.FailNow()
			status(t, l, false, true, false)
			start := time.Now()
			b.stop()
			status(t, l, false, false, true)
			parting(t, l)
			b.left(t, start, 0)
		})
	})
	t.Run("it drains, then fails", func(t *testing.T) {
		run(t, failing, worker.Deps{}, func(t *testing.T, b *bench) {
			l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
			l.Send(t, attach(1, 1, 0))
			fakedirector.Next[*wirepb.Begin](t, l)
			b.stop()
			status(t, l, false, false, true)
			b.stays(t, 5*time.Second)
			start := time.Now()
			b.worker.FailNow()
			status(t, l, false, true, false) // which empties it
			parting(t, l)
			b.left(t, start, 0)
		})
	})
}

// A worker that hangs leaves when its time is up, or when it has woken and is empty.
func TestDrainOfAWorkerThatHangs(t *testing.T) {
	failing := failing("hang")
	failing.DrainTimeout = time.Minute
	run(t, failing, worker.Deps{}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		l.Send(t, attach(1, 1, 0))
		fakedirector.Next[*wirepb.Begin](t, l)
		fakedirector.Next[wire.Chunk](t, l)
		b.worker.FailNow()
		time.Sleep(10 * time.Millisecond)
		start := time.Now()
		b.stop()
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		b.stays(t, 9*time.Second)
		status(t, l, false, false, true) // who hangs cannot even say that it leaves
		parting(t, l)
		b.left(t, start, 10*time.Second)
	})
}

// The whole of it, with a state: the worker leaves, and the text goes on elsewhere.
func TestDrainMovesAState(t *testing.T) {
	const length = 30
	cfg := planned("stateful")
	cfg.TokenInterval = 100 * time.Millisecond
	whole := undisturbed(t, cfg, length)
	target := newSpy(t, cfg)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{Engine: target})
		p := fakedirector.NewPlanner("one")
		la, lb := p.Open(t, b.World, b.from, userAddr), p.Open(t, b.World, b.from, otherUserAddr)
		var tokens [][]byte
		la.Send(t, attach(1, 1, length))
		hearTokens(t, la, &tokens, 5)
		b.stop()
		hear[*wirepb.WorkerStatus](t, la, &tokens)
		la.Send(t, capture(1, 60_000))
		m := hear[*wirepb.Captured](t, la, &tokens)
		lb.Send(t, p.Standby(t, attach(1, 2, length), "worker-b"))
		prepared(t, lb, 1, 2, 0)
		lb.Send(t, p.Fetch(t, 1, 2, m.GetSequence(), "worker-a", mgmtAddr, "worker-b"))
		prepared(t, lb, 1, 2, 0)
		hearTokens(t, la, &tokens, len(tokens)+3)
		lb.Send(t, fakedirector.Pivot(1, 2, 0, tokens))
		start := time.Now()
		la.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		remaining, _ := stream(t, lb, 1, 2, tokens)
		sameText(t, append(tokens[:len(tokens):len(tokens)], remaining...), whole)
		target.began(t, 0, 1)
		la.Ended(t)
		la.Close()
		b.done <- <-b.done
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("left after %v", took)
		}
		lb.Close()
	})
}
