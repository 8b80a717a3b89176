package worker_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestOnlyDirectorsAttach(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		for _, role := range []identity.Role{identity.Client, identity.Worker, identity.Operator} {
			conn, err := b.DialAs(t, role, b.from, userAddr)
			if err != nil {
				continue
			}
			// In TLS 1.3 the refusal comes after the client's end of the handshake.
			if _, err := conn.AcceptUniStream(t.Context()); err == nil || !strings.Contains(err.Error(), "bad certificate") {
				t.Errorf("%s: got %v", role, err)
			}
			conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
		}
		nobody := identity.ClientTLS(identity.Static(nil, must(b.TLS[identity.Director].Roots())), wire.ALPNLink, identity.Worker)
		conn, err := quicnet.Dial(t.Context(), b.from, userAddr, nobody, quicnet.LinkConfig(0))
		if err == nil {
			_, err = conn.AcceptUniStream(t.Context())
			conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("no certificate: got %v", err)
		}
	})
}

func TestGreetings(t *testing.T) {
	cases := map[string]struct {
		change func(h *wirepb.LinkHello)
		want   wire.Code
		say    []string // in the message
	}{
		"no version":        {func(h *wirepb.LinkHello) { h.Version = 0 }, wire.CodeVersion, []string{"version 0", "worker worker-a 3"}},
		"old version":       {func(h *wirepb.LinkHello) { h.Version = 1 }, wire.CodeVersion, []string{"version 1", "worker worker-a 3"}},
		"new version":       {func(h *wirepb.LinkHello) { h.Version = 7 }, wire.CodeVersion, []string{"version 7", "worker worker-a 3"}},
		"no instance":       {func(h *wirepb.LinkHello) { h.DirectorInstance = "" }, wire.CodeProtocol, []string{"instance"}},
		"no streams":        {func(h *wirepb.LinkHello) { h.TokenStreams = 0 }, wire.CodeProtocol, []string{"1 to 4"}},
		"too many streams":  {func(h *wirepb.LinkHello) { h.TokenStreams = 5 }, wire.CodeProtocol, []string{"1 to 4"}},
		"no progress":       {func(h *wirepb.LinkHello) { h.ProgressIntervalMs = 0 }, wire.CodeProtocol, []string{"progress"}},
		"progress too rare": {func(h *wirepb.LinkHello) { h.ProgressIntervalMs = 1<<32 - 1 }, wire.CodeProtocol, []string{"progress"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
				hello := fakedirector.Hello()
				c.change(hello)
				l := b.Dial(t, b.from, userAddr, hello)
				refusal := wire.FromMessage(fakedirector.Next[*wirepb.Error](t, l))
				if refusal.Code != c.want {
					t.Errorf("got %v, want %s", refusal, c.want)
				}
				for _, say := range c.say {
					if !strings.Contains(refusal.Message, say) {
						t.Errorf("%q does not say %q", refusal.Message, say)
					}
				}
				if closed := l.Lost(t); !strings.HasPrefix(closed.ErrorMessage, string(c.want)) {
					t.Errorf("got %v", closed)
				}
				l.Close()
			})
		})
	}
}

func TestBrokenFramesEndTheLink(t *testing.T) {
	frame := func(t wire.Type, body string) []byte {
		b := quicvarint.Append(nil, uint64(quicvarint.Len(uint64(t))+len(body)))
		return append(quicvarint.Append(b, uint64(t)), body...)
	}
	cases := map[string]struct {
		bytes []byte
		want  string // in the reason
	}{
		"too large":                  {quicvarint.Append(nil, wire.MaxAttach+1), "exceeds the limit"},
		"huge":                       {quicvarint.Append(nil, 1<<62-1), "exceeds the limit"},
		"empty":                      {[]byte{0}, "malformed"},
		"an unknown type":            {frame(0x3fff, "x"), "unknown frame type"},
		"no protobuf":                {frame(wire.TypeAttach, "\xff\xff\xff"), "malformed"},
		"a token":                    {frame(wire.TypeLinkToken, "abc"), "unknown frame type"},
		"a message out of place":     {wire.Append(nil, &wirepb.Progress{}), "Progress has no place"},
		"a second hello":             {wire.Append(nil, fakedirector.Hello()), "LinkHello has no place"},
		"numbers too large for QUIC": {wire.Append(nil, attach(1<<62, 1, 1)), "malformed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
				innocent, _ := b.Open(t, b.Net.Host("director-2"), userAddr)
				l, _ := b.Open(t, b.from, userAddr)
				l.SendRaw(t, c.bytes)
				if closed := l.Lost(t); closed.ErrorCode != wire.QUICProtocol || !strings.Contains(closed.ErrorMessage, c.want) {
					t.Errorf("got %v", closed)
				}
				l.Close()
				innocent.Send(t, attach(1, 1, 3))
				stream(t, innocent, 1, 1, nil)
				innocent.Close()
			})
		})
	}
}

func TestSilentDirectorIsNotKept(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		conn, err := b.DialAs(t, identity.Director, b.from, userAddr)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-conn.Context().Done()
		if took := time.Since(start).Round(time.Second); took != 5*time.Second {
			t.Errorf("closed after %v", took)
		}
		conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
	})
}

func TestTetherEndsTheLink(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = time.Second
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		other := fakedirector.Hello()
		other.Tether = "fedcba9876543210"
		untouched := b.Dial(t, b.from, userAddr, other)
		fakedirector.Next[*wirepb.LinkWelcome](t, untouched)
		tether := b.Tether(t, b.from, userAddr, fakedirector.Hello().GetTether()+"\n")
		l.Send(t, attach(1, 1, 0))
		untouched.Send(t, of("conn-2", attach(1, 1, 5)))
		time.Sleep(1500 * time.Millisecond)

		start := time.Now()
		tether.Close() //nolint:errcheck // what counts is that it ends
		if closed := l.Lost(t); closed.ErrorCode != wire.QUICLost {
			t.Errorf("got %v", closed)
		}
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("noticed after %v", took)
		}
		if status := b.status(t); len(status.Sessions) != 1 {
			t.Errorf("sessions left: %v", status.Sessions)
		}
		stream(t, untouched, 1, 1, nil)
		l.Close()
		untouched.Close()
	})
}

// A director that lost its link opens another, and the worker may not know yet that the older one is dead.
func TestNewLinkEndsTheOlderOne(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = time.Second
	cfg.Capacity = 2
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		open := func(instance string) *fakedirector.Link {
			hello := fakedirector.Hello()
			hello.Tether, hello.DirectorInstance = "", instance
			l := b.Dial(t, b.from, userAddr, hello)
			fakedirector.Next[*wirepb.LinkWelcome](t, l)
			return l
		}
		older, namesake := open("one"), open("two")
		older.Send(t, attach(1, 1, 0))
		namesake.Send(t, of("conn-2", attach(1, 1, 5)))
		time.Sleep(1500 * time.Millisecond)

		newer := open("one")
		newer.Send(t, attach(1, 2, 3)) // there is a place for it
		stream(t, newer, 1, 2, nil)
		if closed := older.Lost(t); closed.ErrorCode != wire.QUICLost || !strings.Contains(closed.ErrorMessage, "newer link") {
			t.Errorf("got %v", closed)
		}
		stream(t, namesake, 1, 1, nil) // another process with the same id is not concerned
		for _, l := range []*fakedirector.Link{older, newer, namesake} {
			l.Close()
		}
	})
}

// Whoever fills the port with silent connections, and comes back when they are closed, keeps no tether out, and
// ends none.
func TestSquattersKeepNoTetherOut(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		const squatters = 300
		ctx, leave := context.WithCancel(t.Context())
		stranger := b.Net.Host("stranger")
		var squatting sync.WaitGroup
		squat := func() {
			for ctx.Err() == nil {
				if conn, err := stranger.DialStream(ctx, userAddr); err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // nothing was at stake
					_, _ = conn.Read(make([]byte, 1))
					stop()
					conn.Close() //nolint:errcheck // nothing was at stake
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		l, _ := b.Open(t, b.from, userAddr)
		tether := b.Tether(t, b.from, userAddr, fakedirector.Hello().GetTether()+"\n")
		time.Sleep(100 * time.Millisecond)
		for range squatters {
			squatting.Go(squat)
		}
		time.Sleep(8 * time.Second)
		hello := fakedirector.Hello()
		hello.Tether = "fedcba9876543210"
		late := b.Dial(t, b.from, userAddr, hello)
		fakedirector.Next[*wirepb.LinkWelcome](t, late)
		lateTether := b.Tether(t, b.from, userAddr, hello.GetTether()+"\n")
		time.Sleep(8 * time.Second)
		for _, l := range []*fakedirector.Link{l, late} {
			l.Send(t, attach(1, 1, 3))
			stream(t, l, 1, 1, nil)
		}
		lateTether.Close() //nolint:errcheck // what counts is that it ends
		if closed := late.Lost(t); closed.ErrorCode != wire.QUICLost {
			t.Errorf("got %v", closed)
		}
		leave()
		squatting.Wait()
		l.Close()
		late.Close()
		ends(t, tether, time.Second)
	})
}

// Whoever saw a link's tether id, which crosses the network in the clear, cannot end the link with it.
func TestLinkHasOneTether(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		line := fakedirector.Hello().GetTether() + "\n"
		tether := b.Tether(t, b.from, userAddr, line)
		time.Sleep(100 * time.Millisecond)
		ends(t, b.Tether(t, b.Net.Host("stranger"), userAddr, line), time.Second)
		l.Send(t, attach(1, 1, 3))
		stream(t, l, 1, 1, nil)
		l.Close()
		ends(t, tether, time.Second)
	})
}

func TestLinkEndsTheTether(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		tether := b.Tether(t, b.from, userAddr, fakedirector.Hello().GetTether()+"\n")
		time.Sleep(time.Minute) // neither is closed for being silent
		l.Send(t, attach(1, 1, 1))
		stream(t, l, 1, 1, nil)
		l.Close()
		ends(t, tether, time.Second)
	})
}

func TestStrayTethersAreClosed(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		hello := fakedirector.Hello()
		hello.Tether = "" // a link without one cannot be ended by one
		l := b.Dial(t, b.from, userAddr, hello)
		fakedirector.Next[*wirepb.LinkWelcome](t, l)
		for name, line := range map[string]string{
			"of no link": "ffffffffffffffff\n",
			"too long":   strings.Repeat("0", 1000),
			"empty":      "\n",
			"silent":     "",
		} {
			tether := b.Tether(t, b.from, userAddr, line)
			t.Log(name)
			ends(t, tether, 6*time.Second)
		}
		l.Send(t, attach(1, 1, 1))
		stream(t, l, 1, 1, nil)
		l.Close()
	})
}

// ends fails if the worker keeps a tether for longer than d.
func ends(t *testing.T, tether net.Conn, d time.Duration) {
	t.Helper()
	if err := tether.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(tether); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("still open after %v", d)
	}
	tether.Close() //nolint:errcheck // nothing was at stake
}

func TestProgressIsReported(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		time.Sleep(1050 * time.Millisecond)
		if n := l.Progress.Load(); n != 10 {
			t.Errorf("%d reports in a second, want 10", n)
		}
		l.Close()
	})
}

func TestShutdownTellsTheDirectors(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval, cfg.DrainTimeout = time.Second, time.Millisecond
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		polite, _ := b.Open(t, b.from, userAddr)
		rude, _ := b.Open(t, b.Net.Host("director-2"), userAddr) // does not close when told to
		polite.Send(t, attach(1, 1, 0))
		fakedirector.Next[*wirepb.Begin](t, polite)
		fakedirector.Next[wire.Chunk](t, polite)
		start := time.Now()
		b.stop()
		for _, l := range []*fakedirector.Link{polite, rude} {
			for _, failed := range []bool{false, true} {
				status := fakedirector.Next[*wirepb.WorkerStatus](t, l)
				if status.GetAvailable() || status.GetFailed() != failed || status.GetDraining() == failed || status.GetReason() != "shutting down" {
					t.Errorf("got %v", status)
				}
			}
		}
		polite.Send(t, attach(2, 1, 0))
		time.Sleep(10 * time.Millisecond)
		polite.Close()
		if closed := rude.Lost(t); closed.ErrorCode != wire.QUICShutdown {
			t.Errorf("got %v", closed)
		}
		if took := time.Since(start).Round(100 * time.Millisecond); took != time.Second {
			t.Errorf("waited %v for a director that does not close", took)
		}
		rude.Close()
	})
}

func TestShutdownIsQuickWhereDirectorsClose(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		start := time.Now()
		b.stop()
		fakedirector.Next[*wirepb.WorkerStatus](t, l)
		l.Ended(t)
		l.Close()
		b.done <- <-b.done
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
