package simtest_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/simtest"
)

func TestCutIsOneWay(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.send(client, "before")
		got.after(time.Second)
		p.send(client, "under way")
		time.Sleep(5 * ms)
		p.net.Cut(p.client, p.server)
		p.send(client, "during")
		_, err := server.WriteTo([]byte("back"), client.LocalAddr())
		p.check(err)
		p.wantTexts(got.after(time.Second), "before")
		p.wantTexts(back.after(0), "back")
		p.net.Heal(p.client, p.server)
		p.send(client, "after")
		p.wantTexts(got.after(time.Second), "before", "after")
		if s := p.net.Stats(); s.Cut != 2 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestIsolateIsBothWays(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.server.Isolate()
		p.net.Cut(p.client, p.server)
		p.send(client, "in")
		_, err := server.WriteTo([]byte("out"), client.LocalAddr())
		p.check(err)
		p.wantTexts(got.after(time.Second))
		p.server.Rejoin()
		p.send(client, "still cut")
		_, err = server.WriteTo([]byte("out again"), client.LocalAddr())
		p.check(err)
		p.wantTexts(got.after(time.Second))
		p.wantTexts(back.after(0), "out again")
	})
}

func TestACutRefusesNobody(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		client := p.dial()
		got := collect(client)
		p.server.Isolate()
		p.send(client, "x")
		if got.after(time.Minute); got.failure() != nil {
			t.Fatal(got.failure())
		}
	})
}

func TestFreezeHoldsInOrder(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.send(client, "before")
		got.after(time.Second)
		p.server.Freeze()
		p.send(client, numbered(50)...)
		for _, s := range numbered(50) {
			_, err := server.WriteTo([]byte(s), client.LocalAddr())
			p.check(err)
			time.Sleep(ms)
		}
		p.wantTexts(got.after(time.Second), "before")
		p.wantTexts(back.after(0))
		p.server.Thaw()
		p.wantTexts(got.after(0), append([]string{"before"}, numbered(50)...)...)
		p.wantTexts(back.after(time.Second), numbered(50)...)
		p.server.Thaw()
	})
}

func TestFreezeHoldsNoMoreThanABuffer(t *testing.T) {
	simulate(t, simtest.Options{Buffer: 1000}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		for range 2 {
			p.server.Freeze()
			for range 20 {
				p.send(client, strings.Repeat("x", 100))
				_, err := server.WriteTo(make([]byte, 100), client.LocalAddr())
				p.check(err)
			}
			time.Sleep(time.Second)
			p.server.Thaw()
			time.Sleep(time.Second)
		}
		if len(got.after(0)) != 20 || len(back.after(0)) != 20 || p.net.Stats().Overflow != 40 {
			t.Fatalf("%d in, %d out, %+v", len(got.after(0)), len(back.after(0)), p.net.Stats())
		}
	})
}

func TestAFrozenSocketCanBeClosed(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		_, err := p.server.ListenPacket(":1")
		p.check(err)
		p.server.Freeze()
		p.check(server.SetReadDeadline(time.Now()))
		if !isTimeout(got.failure()) {
			t.Fatal(got.failure())
		}
		p.check(server.Close())
	})
}

// echo accepts one stream and returns everything that comes on it, until its end.
func (p pair) echo() {
	p.Helper()
	l, err := p.server.ListenStream(":62001")
	p.check(err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
}

func (p pair) dialStream() net.Conn {
	p.Helper()
	conn, err := p.client.DialStream(p.Context(), "server:62001")
	p.check(err)
	return conn
}

// readTimed returns the outcome of one Read and how long it took.
func readTimed(conn net.Conn) (string, error, time.Duration) { //nolint:staticcheck // the time is beside the point, so it is last
	start, buf := time.Now(), make([]byte, 100)
	n, err := conn.Read(buf)
	return string(buf[:n]), err, time.Since(start)
}

func TestKillIsSeenByItsPeers(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		p.echo()
		tether, link := p.dialStream(), p.dial()
		refused := collect(link)
		p.send(link, "x")
		got.after(time.Second)

		p.server.Kill()
		if _, err, took := readTimed(tether); err != io.EOF || took != 10*ms { //nolint:errorlint // exactly io.EOF is the contract
			t.Fatalf("tether: %v after %v", err, took)
		}
		if refused.failure() != nil {
			t.Fatal("refused before anything was sent")
		}
		p.send(link, "anybody?")
		refused.after(21 * ms)
		p.wantError(refused.failure(), syscall.ECONNREFUSED)
		p.wantError(got.failure(), net.ErrClosed)
		_, err := server.WriteTo(nil, &net.UDPAddr{})
		p.wantError(err, net.ErrClosed)
		start := time.Now()
		_, err = p.client.DialStream(p.Context(), "server:62001")
		p.wantError(err, syscall.ECONNREFUSED)
		if took := time.Since(start); took != 20*ms {
			t.Fatalf("refused after %v", took)
		}
	})
}

func TestAKilledHostOpensNothingBeforeRestart(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.server.Kill()
		if _, err := p.server.ListenPacket(":62001"); err == nil {
			t.Fatal("a dead process bound a port")
		}
		if _, _, err := p.server.DialPacket(p.Context(), "client:1"); err == nil {
			t.Fatal("a dead process opened a socket")
		}
		if _, err := p.server.DialStream(p.Context(), "client:1"); err == nil {
			t.Fatal("a dead process opened a stream")
		}
		p.server.Restart()
		_, got := p.listen()
		p.send(p.dial(), "welcome back")
		p.wantTexts(got.after(time.Second), "welcome back")
		p.echo()
		p.check(p.dialStream().Close())
	})
}

func TestKillWithUnreadDataResets(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		_, err := p.server.ListenStream(":62001")
		p.check(err)
		conn := p.dialStream()
		_, err = conn.Write([]byte("never read"))
		p.check(err)
		time.Sleep(time.Second)
		p.server.Kill()
		_, err, _ = readTimed(conn)
		p.wantError(err, syscall.ECONNRESET)
		_, err = conn.Write([]byte("x"))
		p.wantError(err, syscall.EPIPE)
	})
}

func TestAKilledProcessTakesWhatItHeldWithIt(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, _ := p.listen()
		client := p.dial()
		got := collect(client)
		p.echo()
		tether := p.dialStream()
		p.server.Freeze()
		_, err := server.WriteTo([]byte("zombie"), client.LocalAddr())
		p.check(err)
		p.server.Kill() // a stopped process can be killed
		_, err, took := readTimed(tether)
		p.wantError(err, io.EOF)
		if took != 10*ms {
			t.Fatal(took)
		}
		p.server.Restart()
		p.wantTexts(got.after(time.Second))
	})
}

func TestCrashIsSeenByNobody(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.listen()
		p.echo()
		tether, link := p.dialStream(), p.dial()
		got := collect(link)
		p.server.Crash()
		p.send(link, "x")
		p.check(tether.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err, _ := readTimed(tether); !isTimeout(err) || got.failure() != nil {
			t.Fatal(err, got.failure())
		}
		p.server.Restart()
		p.check(tether.SetReadDeadline(time.Time{}))
		_, err := tether.Write([]byte("remember me?"))
		p.check(err)
		_, err, _ = readTimed(tether)
		p.wantError(err, syscall.ECONNRESET)
	})
}

func TestNothingHappensInTheSameInstant(t *testing.T) {
	simulate(t, simtest.Options{Path: simtest.Path{Delay: 1}}, func(p pair) {
		_, got := p.listen()
		one, two := p.dial(), p.dial()
		for range 10 {
			p.send(one, "x")
			p.send(two, "x")
		}
		got.after(time.Second)
		if at := slices.Compact(slices.Clone(got.times())); len(at) != 20 {
			t.Fatalf("20 packets arrived at %d instants", len(at))
		}
	})
}

func TestFaultsSpareOthers(t *testing.T) {
	simulate(t, simtest.Options{TracePackets: true}, func(p pair) {
		_, got := p.listen()
		bystander, _, err := p.net.Host("bystander").DialPacket(p.Context(), "server:62001")
		p.check(err)
		client := p.dial()
		p.send(bystander, "1")
		p.send(client, "lost")
		time.Sleep(ms)
		p.client.Isolate()
		p.send(bystander, "2")
		p.send(client, "lost too")
		p.wantTexts(got.after(time.Second), "1", "2")
	})
}

func TestTrace(t *testing.T) {
	var lines []string
	opts := simtest.Options{Path: simtest.Path{Delay: 10 * ms, Loss: 1}, TracePackets: true}
	opts.Trace = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, opts)
		defer n.Close()
		p := pair{t, n, n.Host("server"), n.Host("client")}
		p.listen()
		p.send(p.dial(), "abc")
		time.Sleep(5 * ms)
		n.SetPath(p.client, p.server, simtest.Path{Delay: 10 * ms})
		p.send(p.dial(), "abcd")
		time.Sleep(time.Second)
		p.server.Kill()
	})
	want := []string{
		"          0s  lost udp 10.0.0.2:32769 > 10.0.0.1:62001 #0, 3 bytes",
		"         5ms  path client > server: delay 10ms+0s, loss 0, duplicate 0, reorder 0",
		"        15ms  arrived udp 10.0.0.2:32770 > 10.0.0.1:62001 #0, 4 bytes",
		"      1.005s  kill server",
	}
	if !slices.Equal(lines, want) {
		t.Fatalf("traced\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
