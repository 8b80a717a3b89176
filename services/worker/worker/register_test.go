package worker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

func TestAdvertisedAddresses(t *testing.T) {
	for _, c := range []struct{ listen, advertise, want string }{
		{":62001", "", ":62001"},
		{"0.0.0.0:62001", "", ":62001"},
		{":62001", "worker.example:7000", "worker.example:7000"},
	} {
		cfg := settings()
		cfg.UserAddr, cfg.AdvertiseUserAddr = c.listen, c.advertise
		run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
			if got := (<-b.mgmt.Registrations).GetUserAddr(); got != c.want {
				t.Errorf("listening on %s, advertising %q: registered as %s, want %s", c.listen, c.advertise, got, c.want)
			}
		})
	}
}

func TestRegistersAnewWhenTheDirectorComesBack(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		first := <-b.mgmt.Registrations
		b.mgmt.Close()
		time.Sleep(time.Minute)
		b.mgmt = b.Listen(t, b.from)
		start := time.Now()
		again := <-b.mgmt.Registrations
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("came back after %v", took)
		}
		if first.GetInstance() != again.GetInstance() {
			t.Error("the instance changed, and the process did not")
		}
		if beat := <-b.mgmt.Heartbeats; beat.GetCount() != 1 {
			t.Errorf("got %v", beat)
		}
	})
}

func TestRegistersAnewWhenTheDirectorIsCutOff(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		<-b.mgmt.Registrations
		b.from.Isolate()
		time.Sleep(time.Minute)
		b.from.Rejoin()
		start := time.Now()
		<-b.mgmt.Registrations
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("came back after %v", took)
		}
	})
}

func TestMissedAnswerEndsTheRegistration(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		<-b.mgmt.Registrations
		<-b.mgmt.Heartbeats
		b.mgmt.Deafen(true)
		<-b.mgmt.Heartbeats
		start := time.Now()
		<-b.mgmt.Registrations
		if took := time.Since(start); took < 3*time.Second || took > 3500*time.Millisecond {
			t.Errorf("gave up after %v, want 3s", took)
		}
		b.mgmt.Deafen(false)
		for range 20 {
			<-b.mgmt.Heartbeats
		}
		if n := len(b.mgmt.Registrations); n > 2 {
			t.Errorf("%d registrations more", n)
		}
	})
}

func TestBacksOffWhenRefused(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		b.mgmt.Refuse(wire.Errorf(wire.CodeLabelInUse, "another worker is worker-a"))
		<-b.mgmt.Registrations
		start := time.Now()
		for range 60 {
			<-b.mgmt.Registrations
		}
		// At most 2 s between two, and at least half of that once it has backed off.
		if took := time.Since(start); took < 50*time.Second || took > 125*time.Second {
			t.Errorf("60 attempts in %v", took)
		}
		b.mgmt.Refuse(nil)
		<-b.mgmt.Heartbeats
	})
	refusals := 0
	for _, entry := range logs.All() {
		if err, _ := entry.ContextMap()["error"].(string); strings.Contains(err, "label_in_use: another worker is worker-a") {
			refusals++
		}
	}
	if refusals != 1 {
		t.Errorf("the refusal was logged %d times: %v", refusals, logs.All())
	}
}

func TestFollowsTheNameOfTheDirectors(t *testing.T) {
	cfg := settings()
	cfg.Directors = []string{"directors:61001", "nobody:61001"}
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		second, third := b.Net.Host("director-2"), b.Net.Host("director-3")
		ports := map[*simtest.Host]*fakedirector.Mgmt{b.from: b.mgmt, second: b.Listen(t, second), third: b.Listen(t, third)}
		expect := func(what string, hosts ...*simtest.Host) {
			t.Helper()
			time.Sleep(6 * time.Second) // an interval, and a moment
			for _, port := range ports {
				for len(port.Heartbeats) > 0 {
					<-port.Heartbeats
				}
			}
			time.Sleep(10 * time.Second)
			for host, port := range ports {
				wanted := false
				for _, h := range hosts {
					wanted = wanted || h == host
				}
				if n := len(port.Heartbeats); (n > 0) != wanted || n > 2 {
					t.Errorf("%s: %s had %d heartbeats in two intervals", what, host.Name(), n)
				}
			}
		}
		expect("the name is not known yet")
		b.Net.Alias("directors", b.from, second)
		expect("two addresses", b.from, second)
		b.Net.Alias("directors", second, third)
		expect("one went, one came", second, third)
		b.Net.Alias("directors")
		b.Net.Alias("nobody", third)
		expect("the name is gone: who knows why; those that were found stay", second, third)
		ports[second].Close()
		ports[third].Close()
	})
}

// deafNames is a host whose name server answers for one name only.
type deafNames struct {
	quicnet.Network
	knows string
}

func (n deafNames) Resolve(ctx context.Context, addr string) ([]string, error) {
	if addr == n.knows {
		return n.Network.Resolve(ctx, addr)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// A name that nobody answers for, and an address where nobody is, hold up no registration elsewhere.
func TestResolveIsNotHeldUp(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		<-b.mgmt.Registrations
		gone, host := b.Net.Host("gone"), b.Net.Host("worker-b")
		gone.Crash()
		b.Net.Alias("directors", gone, b.from)
		cfg := settings()
		cfg.Label, cfg.Directors = "worker-b", []string{"deaf:61001", "directors:61001", "deaf-too:61001"}
		start := time.Now()
		b.start(t, host, cfg, worker.Deps{Network: deafNames{host, "directors:61001"}})
		<-b.mgmt.Registrations
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("registered after %v", took)
		}
	})
}
