package worker_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// director makes the bench's MGMT port one of a process with that instance.
func (b *bench) director(t *testing.T, instance string) {
	t.Helper()
	b.mgmt.Close()
	b.mgmt = b.ListenAs(t, b.from, instance)
	<-b.mgmt.Registrations
	<-b.mgmt.Heartbeats
}

// killAndRestart kills the director's process, and starts another one after a while.
func (b *bench) killAndRestart(t *testing.T, after time.Duration, instance string) {
	t.Helper()
	b.mgmt.Die(b.from)
	time.Sleep(after)
	b.from.Restart()
	b.mgmt = b.ListenAs(t, b.from, instance)
}

// A director that is killed and comes back has its workers again as soon as their links, or tethers, tell them.
func TestLinkEndMakesTheWorkerLookAtItsRegistration(t *testing.T) {
	for name, c := range map[string]struct {
		down time.Duration
		most time.Duration // from the restart to the registration
	}{
		"at once":              {0, 300 * time.Millisecond},
		"after a moment":       {300 * time.Millisecond, 300 * time.Millisecond},
		"after a few seconds":  {5 * time.Second, 300 * time.Millisecond},
		"long after everybody": {time.Minute, 2100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
				b.director(t, "one")
				l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
				b.Tether(t, b.from, userAddr, fakedirector.Hello().GetTether()+"\n")
				time.Sleep(1234 * time.Millisecond)
				b.killAndRestart(t, c.down, "two")
				start := time.Now()
				<-b.mgmt.Registrations
				if took := time.Since(start); took > c.most {
					t.Errorf("registered %v after the restart", took)
				}
				l.Close()
			})
		})
	}
}

// A link that ends while its director lives costs no registration.
func TestLinkEndAloneEndsNoRegistration(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		b.director(t, "one")
		for range 5 {
			l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
			l.Close()
			time.Sleep(time.Second)
		}
		if n := len(b.mgmt.Registrations); n > 0 || b.mgmt.Connections() != 1 {
			t.Errorf("%d registrations more", n)
		}
		if s := b.status(t); s.Directors != 1 {
			t.Errorf("registered at %d directors", s.Directors)
		}
	})
}

// dual makes one director answer at two addresses of the name "dual". The bench closes the first one.
func (b *bench) dual(t *testing.T) (second *fakedirector.Mgmt, host *simtest.Host) {
	t.Helper()
	host = b.Net.Host("director-v6")
	b.mgmt.Close()
	b.mgmt, second = b.ListenAs(t, b.from, "one"), b.ListenAs(t, host, "one")
	b.Net.Alias("dual", b.from, host)
	return second, host
}

// One process of a director that answers at two addresses of its name has one registration, and no reason to complain.
func TestOneRegistrationPerDirector(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	cfg := settings()
	cfg.Directors = []string{"dual:61001"}
	run(t, cfg, worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		second, host := b.dual(t)
		time.Sleep(20 * time.Second)
		if n := len(b.mgmt.Registrations) + len(second.Registrations); n != 1 {
			t.Errorf("%d registrations", n)
		}
		if s := b.status(t); s.Directors != 1 {
			t.Errorf("registered at %d directors", s.Directors)
		}
		for _, entry := range logs.FilterMessageSnippet("not registered").All() {
			t.Errorf("complaint: %v", entry)
		}

		// The address that it used goes: it goes on by the other one.
		used, at, left := b.mgmt, b.from, second
		if len(second.Registrations) > 0 {
			used, at, left = second, host, b.mgmt
		}
		used.Die(at)
		at.Restart() // the machine answers, the process is gone
		<-left.Registrations
		<-left.Heartbeats
		if s := b.status(t); s.Directors != 1 {
			t.Errorf("registered at %d directors", s.Directors)
		}
		second.Close()
	})
}

// Two directors that share a name have a registration each, whoever of them comes when.
func TestEachDirectorOfANameHasARegistration(t *testing.T) {
	cfg := settings()
	cfg.Directors = []string{"directors:61001"}
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		second := b.Net.Host("director-2")
		b.mgmt.Close()
		b.mgmt = b.ListenAs(t, b.from, "one")
		other := b.ListenAs(t, second, "two")
		b.Net.Alias("directors", b.from, second)
		<-b.mgmt.Registrations
		<-other.Registrations
		time.Sleep(time.Second)
		if s := b.status(t); s.Directors != 2 {
			t.Errorf("registered at %d directors", s.Directors)
		}
		other.Close()
	})
}

// A director that cannot reach the worker makes it not ready, in words; one that can makes it ready again.
func TestUnreachableWorkerIsNotReady(t *testing.T) {
	const why = "dialling 10.0.0.9:62001: no route to host"
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.director(t, "one")
		b.mgmt.CannotReach(why)
		time.Sleep(6 * time.Second)
		if code, body := b.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, why) {
			t.Errorf("readyz: %d %q", code, body)
		}
		if s := b.status(t); s.Unreachable != why || s.Directors != 1 {
			t.Errorf("got %+v", s)
		}
		time.Sleep(9 * time.Minute)
		if n := logs.FilterMessageSnippet("cannot reach").Len(); n != 1 {
			t.Errorf("%d warnings in nine minutes: %v", n, logs.All())
		}
		b.mgmt.CannotReach("")
		time.Sleep(6 * time.Second)
		if code, body := b.get(t, "/readyz"); code != http.StatusOK {
			t.Errorf("readyz: %d %q", code, body)
		}
	})
}

// An empty host in the advertised address stands for the one that the director sees: where that leads nowhere by one
// address of the director, the other one is tried.
func TestUnreachableByOneAddressIsReachedByTheOther(t *testing.T) {
	cfg := settings()
	cfg.Directors = []string{"dual:61001"}
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		second, _ := b.dual(t)
		b.mgmt.CannotReach("refused")
		time.Sleep(time.Minute)
		if s := b.status(t); s.Directors != 1 || s.Unreachable != "" {
			t.Errorf("got %+v", s)
		}
		if n := len(b.mgmt.Registrations) + len(second.Registrations); n > 2 {
			t.Errorf("%d registrations", n)
		}
		second.CannotReach("refused") // neither works: no reason to run to and fro
		time.Sleep(5 * time.Minute)
		if n := len(b.mgmt.Registrations) + len(second.Registrations); n > 4 {
			t.Errorf("%d registrations", n)
		}
		if s := b.status(t); s.Unreachable != "refused" {
			t.Errorf("got %+v", s)
		}
		second.Close()
	})
}

// What an operator wished outlives the director that was told of it.
func TestDrainOutlivesTheDirector(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		if first := <-b.mgmt.Registrations; first.GetDrained() {
			t.Errorf("got %v", first)
		}
		registersAs := func(instance string, drained bool) *fakedirector.Link {
			t.Helper()
			b.mgmt.Die(b.from)
			b.from.Restart()
			b.mgmt = b.ListenAs(t, b.from, instance)
			if m := <-b.mgmt.Registrations; m.GetDrained() != drained || (m.GetDrainedBy() == "director-1") != drained {
				t.Errorf("%s is told: drained %v, by %q", instance, m.GetDrained(), m.GetDrainedBy())
			}
			return fakedirector.NewPlanner(instance).Open(t, b.World, b.from, userAddr)
		}
		one := registersAs("one", false)
		one.Send(t, &wirepb.DrainMark{Drained: true}, &wirepb.DrainMark{Drained: true})
		time.Sleep(time.Second)
		if s := b.status(t); s.DrainedBy != "director-1" || !s.Available {
			t.Errorf("got %+v", s)
		}
		two := registersAs("two", true)
		three := registersAs("three", true)
		three.Send(t, &wirepb.DrainMark{})
		time.Sleep(time.Second)
		if s := b.status(t); s.DrainedBy != "" {
			t.Errorf("got %+v", s)
		}
		four := registersAs("four", false)
		for _, l := range []*fakedirector.Link{one, two, three, four} {
			l.Close()
		}
	})
	if n := logs.FilterMessageSnippet("drained by an operator").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// What a director's process left here is given up when another process has followed it, not only when its time is over.
func TestReplacedDirectorLeavesNothing(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		b.director(t, "one")
		s := b.source(t)
		s.link.Send(t, capture(2, 0))
		fakedirector.Next[*wirepb.Captured](t, s.link)
		if b.status(t).SnapshotBytes == 0 {
			t.Fatal("nothing is kept")
		}
		b.killAndRestart(t, 0, "two")
		<-b.mgmt.Registrations
		s.link.Close()
		time.Sleep(time.Minute)
		if held := b.status(t).SnapshotBytes; held != 0 {
			t.Errorf("%d bytes are kept for a process that is gone", held)
		}
	})
}
