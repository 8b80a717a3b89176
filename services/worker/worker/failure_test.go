package worker_test

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// failing fails in the given mode when the test says so, and not by itself.
func failing(mode string) config.Worker {
	cfg := settings()
	cfg.TokenInterval = time.Second
	cfg.FailureMode = mode
	cfg.FailureMin, cfg.FailureMax = time.Hour, time.Hour
	return cfg
}

// arrivals reads tokens for d and returns when each arrived.
func arrivals(l *fakedirector.Link, d time.Duration) (at []time.Duration, tokens [][]byte) {
	start := time.Now()
	for time.Since(start) < d {
		for _, event := range l.Remaining(10 * time.Millisecond) {
			if token, ok := event.(wire.Chunk); ok {
				at = append(at, time.Since(start))
				tokens = append(tokens, token.Text)
			}
		}
	}
	return at, tokens
}

func TestModeError(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, failing("error"), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		other, _ := b.Open(t, b.Net.Host("director-2"), userAddr)
		<-b.mgmt.Heartbeats
		l.Send(t, attach(1, 1, 0))
		arrivals(l, 2500*time.Millisecond)
		start := time.Now()
		b.worker.FailNow()
		for _, l := range []*fakedirector.Link{l, other} {
			status := fakedirector.Next[*wirepb.WorkerStatus](t, l)
			if status.GetAvailable() || !status.GetFailed() || status.GetReason() != "simulated failure after 2.5s" {
				t.Errorf("got %v", status)
			}
		}
		if beat := <-b.mgmt.Heartbeats; beat.GetSessions() != 0 {
			t.Errorf("got %v", beat)
		}
		l.Send(t, attach(1, 2, 0))
		if refused := fakedirector.Next[*wirepb.Refused](t, l); refused.GetCode() != string(wire.CodeUnavailable) {
			t.Errorf("got %v", refused)
		}
		late, welcome := b.Open(t, b.from, userAddr)
		if welcome.GetAvailable() || welcome.GetReason() != "simulated failure after 2.5s" {
			t.Errorf("a new link is told that the worker is available, or not why: %v", welcome)
		}
		b.worker.FailNow() // while it has failed already: no effect

		for _, l := range []*fakedirector.Link{l, other, late} {
			if status := fakedirector.Next[*wirepb.WorkerStatus](t, l); !status.GetAvailable() || status.GetFailed() {
				t.Errorf("got %v", status)
			}
		}
		if took := time.Since(start).Round(100 * time.Millisecond); took != 10*time.Second {
			t.Errorf("recovered after %v", took)
		}
		l.Send(t, attach(1, 3, 3))
		stream(t, l, 1, 3, nil)
		if remaining := append(l.Remaining(time.Minute), other.Remaining(time.Minute)...); len(remaining) > 0 {
			t.Errorf("more came: %v", remaining)
		}
		l.Close()
		other.Close()
		late.Close()
	})
	entries := logs.FilterMessage("simulating failure after 2.5s").All()
	if len(entries) != 1 || entries[0].ContextMap()["worker"] != "worker-a" || entries[0].ContextMap()["connection.id"] != "conn-1" {
		t.Errorf("logged: %v", entries)
	}
}

func TestModeHang(t *testing.T) {
	run(t, failing("hang"), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		<-b.mgmt.Heartbeats
		l.Send(t, attach(1, 1, 0))
		_, before := arrivals(l, 2500*time.Millisecond)
		b.worker.FailNow()
		time.Sleep(10 * time.Millisecond)
		reports := l.Progress.Load()
		start := time.Now()

		// Alive and silent: what it is asked meanwhile waits, as it would for a stopped process.
		l.Send(t, attach(2, 1, 1), &wirepb.Cancel{Session: 7, Epoch: 1})
		late := b.Dial(t, b.from, userAddr, fakedirector.Hello())
		if remaining := append(l.Remaining(4*time.Second), late.Remaining(4*time.Second)...); len(remaining) > 0 {
			t.Errorf("it produces: %v", remaining)
		}
		if l.Progress.Load() != reports {
			t.Error("it reports progress")
		}
		if len(b.mgmt.Heartbeats) > 0 {
			t.Error("it sends heartbeats")
		}
		if err := l.Conn.Context().Err(); err != nil {
			t.Errorf("it does not answer pings: %v", err)
		}

		fakedirector.Next[*wirepb.LinkWelcome](t, late)
		if woke := time.Since(start).Round(100 * time.Millisecond); woke != 10*time.Second {
			t.Errorf("woke after %v", woke)
		}
		// The zombie goes on where it was. It does not know that it was away.
		next := uint64(len(before)) + 1
		events := l.Remaining(3 * time.Second)
		for _, event := range events {
			if token, ok := event.(wire.Chunk); ok && token.Session == 1 {
				if token.Epoch != 1 || token.Sequence != next {
					t.Errorf("got %v, want sequence %d", token, next)
				}
				next++
			}
		}
		if len(only[*wirepb.End](events)) != 1 {
			t.Errorf("the session of meanwhile was not served: %v", events)
		}
		if next < uint64(len(before))+3 {
			t.Errorf("after waking: %v", events)
		}
		l.Close()
		late.Close()
	})
}

func TestHungWorkerStopsWhenAsked(t *testing.T) {
	run(t, failing("hang"), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 0))
		arrivals(l, time.Second)
		b.worker.FailNow()
		time.Sleep(time.Second)
		l.Close()
		time.Sleep(time.Second)
		if status := b.status(t); len(status.Sessions) > 0 {
			t.Errorf("sessions of a closed link: %v", status.Sessions)
		}
	})
}

func TestModeDrop(t *testing.T) {
	run(t, failing("drop"), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		tether := b.Tether(t, b.from, userAddr, fakedirector.Hello().GetTether()+"\n")
		<-b.mgmt.Heartbeats
		l.Send(t, attach(1, 1, 0))
		arrivals(l, 2500*time.Millisecond)
		b.worker.FailNow()
		time.Sleep(10 * time.Millisecond)
		if at, _ := arrivals(l, 9*time.Second); len(at) > 0 {
			t.Errorf("tokens came: %v", at)
		}
		time.Sleep(5 * time.Second) // QUIC sends again
		for len(b.mgmt.Registrations) > 0 {
			<-b.mgmt.Registrations
		}
		fresh, _ := b.Open(t, b.Net.Host("director-2"), userAddr)
		fresh.Send(t, of("conn-2", attach(1, 1, 2)))
		stream(t, fresh, 1, 1, nil)
		fresh.Close()
		l.Close()
		ends(t, tether, time.Second)
	})
}

func TestModeSlow(t *testing.T) {
	for _, c := range []struct{ interval, want time.Duration }{
		{100 * time.Millisecond, 2 * time.Second},
		{0, 20 * time.Millisecond},
	} {
		cfg := failing("slow")
		cfg.TokenInterval = c.interval
		run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
			l, _ := b.Open(t, b.from, userAddr)
			b.worker.FailNow()
			time.Sleep(time.Millisecond)
			l.Send(t, attach(1, 1, 0))
			at, _ := arrivals(l, 8*time.Second)
			if n := int(8 * time.Second / c.want); len(at) < n-1 || len(at) > n+1 {
				t.Errorf("interval %v: %d tokens in 8s, want about %d", c.interval, len(at), n)
			}
			l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
			time.Sleep(3 * time.Second)
			l.Send(t, attach(1, 2, 50)) // well again
			start := time.Now()
			for len(only[*wirepb.End](l.Remaining(10*time.Millisecond))) == 0 {
				if time.Since(start) > 50*c.interval+time.Second {
					t.Fatalf("interval %v: still slow", c.interval)
				}
			}
			l.Close()
		})
	}
}

func TestModeExit(t *testing.T) {
	died := make(chan time.Time, 1)
	run(t, failing("exit"), worker.Deps{Die: func() { died <- time.Now() }}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		time.Sleep(time.Second)
		b.worker.FailNow()
		if remaining := l.Remaining(time.Second); len(remaining) > 0 {
			t.Errorf("it says goodbye: %v", remaining)
		}
		if len(died) != 1 {
			t.Error("it lives")
		}
		l.Close()
	})
}

func TestModeNone(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		b.worker.FailNow()
		if remaining := l.Remaining(time.Minute); len(remaining) > 0 {
			t.Errorf("got %v", remaining)
		}
		l.Close()
	})
	if logs.Len() != 1 {
		t.Errorf("logged: %v", logs.All())
	}
}

func TestPacketLossLosesNoToken(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = 10 * time.Millisecond
	cfg.PacketLoss = 0.2
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 300))
		stream(t, l, 1, 1, nil) // checks each of them
		l.Close()
	})
}
