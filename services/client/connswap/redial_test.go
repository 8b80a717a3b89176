package connswap_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// away begins a stream, takes its client's director away for so long, and returns how long after that the stream goes on.
func (w *world) away(nw quicnet.Network, silent bool, lasts time.Duration, begin, end func()) (back time.Duration) {
	w.Helper()
	w.start(fakedirector.Director{Silent: silent, ResumeWait: 2 * time.Minute, Play: func(s *fakedirector.Stream) {
		s.Assign()
		s.Say(1, "a")
		time.Sleep(10 * time.Second)
		s.Break(wire.QUICLost) // which nobody hears
	}})
	options := w.options()
	options.Network = nw
	conn, err := connswap.Dial(w.Context(), "director:61000", options)
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	stream, err := conn.Generate(w.Context(), connswap.Request{Prompt: "hello"})
	if err != nil {
		w.Fatal(err)
	}
	var ended time.Time
	for event, err := range stream.Events() {
		if err != nil {
			w.Fatal(err)
		}
		switch event.(type) {
		case connswap.Token:
			begin()
			time.AfterFunc(lasts, func() {
				ended = time.Now()
				end()
			})
		case connswap.Resumed:
			return time.Since(ended)
		}
	}
	w.Fatal("the stream ended")
	return 0
}

// TestBackAtOnce: a client that was cut off goes on within two round trips and 20 ms, at whatever moment the network is back,
// from a director that is near and answers pings; from one that is far three round trips after a ping. From one that answers
// none it goes on as well, two round trips after it dials the next time.
func TestBackAtOnce(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		silent       bool
		trip, within time.Duration
	}{
		"near":             {false, 2 * ms, 2*2*ms + 20*ms},
		"not so near":      {false, 8 * ms, 2*8*ms + 20*ms},
		"far":              {false, 40 * ms, 3*40*ms + 11*ms},
		"near, no answers": {true, 2 * ms, 2*2*ms + 101*ms},
		"far, no answers":  {true, 40 * ms, 2*40*ms + 101*ms},
	} {
		t.Run(name, func(t *testing.T) {
			var longest time.Duration
			for phase := time.Duration(0); phase < 100*ms; phase += 9 * ms {
				inWorld(t, func(w *world) {
					way := simtest.Path{Delay: test.trip / 2}
					w.net.SetPath(w.client, w.director, way)
					w.net.SetPath(w.director, w.client, way)
					longest = max(longest, w.away(w.client, test.silent, 20*time.Second+phase, w.client.Isolate, w.client.Rejoin))
				})
			}
			t.Logf("%v at most", longest)
			if longest > test.within || longest < test.within-20*ms {
				t.Errorf("back after %v, want %v", longest, test.within)
			}
		})
	}
}

// narrow is a network on which, while it is blocked, nothing passes but pings.
type narrow struct {
	quicnet.Network

	blocked           atomic.Bool
	handshakes, pings atomic.Int64 // begun, and sent, meanwhile
}

func (n *narrow) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	socket, remote, err := n.Network.DialPacket(ctx, addr)
	return &narrowSocket{PacketConn: socket, net: n}, remote, err
}

type narrowSocket struct {
	net.PacketConn

	net  *narrow
	used bool // written by the one goroutine that sends
}

func (s *narrowSocket) WriteTo(p []byte, addr net.Addr) (int, error) {
	ping, fresh := p[0]&0xc0 == 0, !s.used
	s.used = true
	switch {
	case !s.net.blocked.Load():
	case ping:
		s.net.pings.Add(1)
	case fresh:
		s.net.handshakes.Add(1)
		fallthrough
	default:
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, addr)
}

// TestPingsAlonePass: where pings are answered and handshakes lead nowhere, that begins one more handshake a second, not one for
// each answer. Where they are not answered there are no more of them than one each 10 ms, and later fewer.
func TestPingsAlonePass(t *testing.T) {
	var handshakes, pings [2]int64
	for i, silent := range []bool{true, false} {
		inWorld(t, func(w *world) {
			nw := &narrow{Network: w.client}
			block := func(on bool) func() { return func() { nw.blocked.Store(on) } }
			if back := w.away(nw, silent, 66*time.Second, block(true), block(false)); back > 120*time.Millisecond {
				t.Errorf("back after %v", back)
			}
			handshakes[i], pings[i] = nw.handshakes.Load(), nw.pings.Load()
		})
	}
	t.Logf("without answers, and with: %d handshakes, %d pings", handshakes, pings)
	if more := handshakes[1] - handshakes[0]; more < 1 || more > 60 {
		t.Errorf("%d more handshakes in a minute, because of pings", more)
	}
	if pings[0] < 3500 || pings[0] > 5000 || pings[1] > 200 {
		t.Errorf("%d pings in a minute without answers, %d with", pings[0], pings[1])
	}
}
