package simtest_test

import (
	"bytes"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/simtest"
)

const ms = time.Millisecond

func TestPacketsArriveAfterTheDelay(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.send(client, "ping")
		p.wantTexts(got.after(9 * ms))
		p.wantTexts(got.after(2*ms), "ping")
		if got.times()[0] != 10*ms || got.sender().String() != client.LocalAddr().String() {
			t.Fatalf("arrived after %v from %v", got.times(), got.sender())
		}
		_, err := server.WriteTo([]byte("pong"), got.sender())
		p.check(err)
		p.wantTexts(back.after(20*ms), "pong")
	})
}

func TestPacketsAreCopied(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		_, got := p.listen()
		client := p.dial()
		data := []byte("original")
		_, err := client.WriteTo(data, nil)
		p.check(err)
		copy(data, "changed!")
		p.wantTexts(got.after(time.Second), "original")
	})
}

func TestPacketsAreCutToTheReadersBuffer(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, err := p.server.ListenPacket(":62001")
		p.check(err)
		client := p.dial()
		p.send(client, "too long", "next")
		buf := make([]byte, 3)
		for _, want := range []string{"too", "nex"} {
			n, _, err := server.ReadFrom(buf)
			if err != nil || string(buf[:n]) != want {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
		}
		_, err = client.WriteTo(make([]byte, 1<<16), nil)
		p.wantError(err, syscall.EMSGSIZE)
	})
}

func TestJitterKeepsTheOrder(t *testing.T) {
	opts := simtest.Options{Path: simtest.Path{Delay: 10 * ms, Jitter: 30 * ms}}
	simulate(t, opts, func(p pair) {
		_, got := p.listen()
		client := p.dial()
		want := numbered(200)
		for _, s := range want {
			p.send(client, s)
			time.Sleep(ms)
		}
		p.wantTexts(got.after(time.Second), want...)
		var spread time.Duration
		for i, at := range got.times() {
			late := at - time.Duration(i)*ms
			if late < 10*ms || late > 40*ms {
				t.Fatalf("packet %d took %v", i, late)
			}
			spread = max(spread, late)
		}
		if spread < 30*ms {
			t.Fatalf("no packet took more than %v", spread)
		}
	})
}

func TestReorder(t *testing.T) {
	opts := simtest.Options{Path: simtest.Path{Delay: 10 * ms, Reorder: 0.2}}
	simulate(t, opts, func(p pair) {
		_, got := p.listen()
		client := p.dial()
		want := numbered(500)
		for _, s := range want {
			p.send(client, s)
			time.Sleep(ms)
		}
		texts := got.after(time.Second)
		if slices.Equal(texts, want) {
			t.Fatal("nothing was reordered")
		}
		overtaken := 0
		for i, s := range texts {
			if s != want[i] {
				overtaken++
			}
		}
		t.Logf("%d of %d packets at another place", overtaken, len(want))
		slices.Sort(texts)
		slices.Sort(want)
		p.wantTexts(texts, want...)
	})
}

func TestLossAndDuplication(t *testing.T) {
	opts := simtest.Options{Path: simtest.Path{Delay: 10 * ms, Loss: 0.1, Duplicate: 0.05}}
	simulate(t, opts, func(p pair) {
		_, got := p.listen()
		client := p.dial()
		const sent = 20_000
		for range sent {
			p.send(client, "x")
			time.Sleep(ms)
		}
		arrived := len(got.after(time.Second))
		if want := sent * 0.9 * 1.05; math.Abs(float64(arrived)-want) > 150 {
			t.Fatalf("%d arrived, want about %v", arrived, want)
		}
		s := p.net.Stats()
		if s.Delivered != arrived || s.Sent != s.Delivered+s.Lost || s.Bytes != arrived {
			t.Fatalf("counted %+v", s)
		}
	})
}

func TestPathsHaveTwoDirections(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.net.SetPath(p.client, p.server, simtest.Path{Delay: 100 * ms})
		p.net.SetPath(p.server, p.client, simtest.Path{Loss: 1})
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.send(client, "there")
		p.wantTexts(got.after(time.Second), "there")
		if got.times()[0] != 100*ms {
			t.Fatal(got.times())
		}
		_, err := server.WriteTo([]byte("never"), client.LocalAddr())
		p.check(err)
		p.wantTexts(back.after(time.Second))
	})
}

func TestLoopbackHasNoFaults(t *testing.T) {
	simulate(t, simtest.Options{Path: simtest.Path{Loss: 1}}, func(p pair) {
		_, got := p.listen()
		own, _, err := p.server.DialPacket(p.Context(), "localhost:62001")
		p.check(err)
		p.server.Isolate()
		p.send(own, "myself")
		p.wantTexts(got.after(time.Second), "myself")
	})
}

func TestNobodysAddressSwallows(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		client, _, err := p.client.DialPacket(p.Context(), "10.9.9.9:1")
		p.check(err)
		got := collect(client)
		p.send(client, "hello?")
		got.after(time.Minute)
		if got.failure() != nil || p.net.Stats().Cut != 1 {
			t.Fatal(got.failure(), p.net.Stats())
		}
	})
}

func TestConnectedSocketsHearOnlyTheirPeer(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.listen()
		client := p.dial()
		got := collect(client)
		stranger, err := p.server.ListenPacket(":7")
		p.check(err)
		_, err = stranger.WriteTo([]byte("hi"), client.LocalAddr())
		p.check(err)
		p.wantTexts(got.after(time.Second))
	})
}

func TestAFullBufferDrops(t *testing.T) {
	simulate(t, simtest.Options{Buffer: 1000}, func(p pair) {
		server, err := p.server.ListenPacket(":62001")
		p.check(err)
		client := p.dial()
		p.send(client, strings.Repeat("a", 600), strings.Repeat("b", 600), strings.Repeat("c", 300))
		time.Sleep(time.Second)
		got := collect(server).after(0)
		if len(got) != 2 || got[0][0] != 'a' || got[1][0] != 'c' || p.net.Stats().Overflow != 1 {
			t.Fatalf("received %d packets, %+v", len(got), p.net.Stats())
		}
	})
}

func TestPacketDeadlines(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.listen()
		client := p.dial()
		start := time.Now()
		p.check(client.SetReadDeadline(start.Add(50 * ms)))
		if _, _, err := client.ReadFrom(nil); !isTimeout(err) || time.Since(start) != 50*ms {
			t.Fatalf("got %v after %v", err, time.Since(start))
		}
		if _, _, err := client.ReadFrom(nil); !isTimeout(err) {
			t.Fatalf("a passed deadline: %v", err)
		}
		p.check(client.SetReadDeadline(time.Time{}))
		got := collect(client)
		if got.failure() != nil {
			t.Fatal(got.failure())
		}
		p.check(client.SetDeadline(time.Now())) // as quic-go does to stop its reader
		if !isTimeout(got.failure()) {
			t.Fatalf("a deadline set during ReadFrom: %v", got.failure())
		}
		_, err := client.WriteTo(nil, nil)
		p.wantError(err, os.ErrDeadlineExceeded)
		p.check(client.SetWriteDeadline(time.Time{}))
		p.send(client, "again")
	})
}

func TestCloseEndsReadFrom(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		synctest.Wait()
		p.check(server.Close())
		p.wantError(got.failure(), net.ErrClosed)
		_, err := server.WriteTo(nil, &net.UDPAddr{})
		p.wantError(err, net.ErrClosed)
		p.wantError(server.SetReadDeadline(time.Now()), net.ErrClosed)
	})
}

func TestClosedPortsRefuse(t *testing.T) {
	for _, silent := range []bool{false, true} {
		simulate(t, simtest.Options{Silent: silent}, func(p pair) {
			client := p.dial()
			got := collect(client)
			unconnected, err := p.client.ListenPacket(":8")
			p.check(err)
			hears := collect(unconnected)
			_, err = unconnected.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:62001")))
			p.check(err)
			p.send(client, "anybody there?")
			if got.after(19 * ms); got.failure() != nil {
				t.Fatal("refused before a round trip")
			}
			got.after(2 * ms)
			if silent {
				p.wantError(got.failure(), nil)
				return
			}
			p.wantError(got.failure(), syscall.ECONNREFUSED)
			if hears.failure() != nil {
				t.Fatalf("an unconnected socket heard %v", hears.failure())
			}
			_, got = p.listen() // the socket can go on
			p.send(client, "and now?")
			p.wantTexts(got.after(time.Second), "and now?")
		})
	}
}

func TestLargeBursts(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		_, got := p.listen()
		client := p.dial()
		want := make([]string, 100)
		for i := range want {
			want[i] = string(bytes.Repeat([]byte{byte(i)}, 1200))
		}
		p.send(client, want...)
		p.wantTexts(got.after(time.Second), want...)
	})
}

// A host that is rebound sends from another port; what was sent to the old one vanishes, and what it listens on stays.
func TestRebind(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, got := p.listen()
		client := p.dial()
		back := collect(client)
		p.send(client, "before")
		p.wantTexts(got.after(20*ms), "before")
		old := got.sender()
		p.client.Rebind()
		p.server.Rebind()
		_, err := server.WriteTo([]byte("to the old port"), old)
		p.check(err)
		p.wantTexts(back.after(50 * ms))
		p.send(client, "after")
		p.wantTexts(got.after(20*ms), "before", "after")
		if got.sender().String() == old.String() || client.LocalAddr().String() != old.String() {
			t.Fatalf("from %v, before that from %v", got.sender(), old)
		}
		_, err = server.WriteTo([]byte("to the new port"), got.sender())
		p.check(err)
		p.wantTexts(back.after(20*ms), "to the new port")
		p.check(client.Close())
		_, err = server.WriteTo([]byte("to nobody"), got.sender())
		p.check(err)
		before := p.net.Stats().Refused
		time.Sleep(20 * ms)
		if p.net.Stats().Refused != before+1 {
			t.Error("a closed socket still has its port")
		}
	})
}
