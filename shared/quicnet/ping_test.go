package quicnet_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
)

// pinged runs f beside a listener on host "server" that answers pings, 10 ms away.
func pinged(t *testing.T, f func(crowd)) {
	t.Helper()
	gathered(t, func(c crowd) {
		ctx, stop := context.WithCancel(c.Context())
		answering := make(chan error)
		go func() { answering <- c.l.AnswerPings(ctx) }()
		f(c)
		stop()
		if err := <-answering; err != nil {
			c.Error(err)
		}
	})
}

// pings has a host ping the listener, and returns how long it took.
func (c crowd) pings(host string, interval, most time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(c.Context(), most)
	defer cancel()
	start := time.Now()
	err := quicnet.Ping(ctx, c.net.Host(host), "server:61000", interval)
	return time.Since(start), err
}

// TestPing: an answer takes a round trip, and comes a round trip after the network is back at most, and an interval.
func TestPing(t *testing.T) {
	const trip, interval = 20 * time.Millisecond, 7 * time.Millisecond
	pinged(t, func(c crowd) {
		if took, err := c.pings("client", time.Second, time.Minute); err != nil || took < trip || took > trip+time.Millisecond {
			t.Errorf("answered after %v: %v", took, err)
		}
		client, server := c.net.Host("client"), c.net.Host("server")
		for name, outage := range map[string]struct{ begin, end func() }{
			"questions are lost":      {func() { c.net.Cut(client, server) }, func() { c.net.Heal(client, server) }},
			"answers are lost":        {func() { c.net.Cut(server, client) }, func() { c.net.Heal(server, client) }},
			"there is no way":         {client.Kill, client.Restart},
			"nothing passes at all":   {client.Isolate, client.Rejoin},
			"the server is cut off":   {server.Isolate, server.Rejoin},
			"the client stands still": {client.Freeze, client.Thaw},
		} {
			outage.begin()
			time.AfterFunc(20*time.Second, outage.end)
			took, err := c.pings("client", interval, time.Minute)
			if took -= 20 * time.Second; err != nil || took < trip/2 || took > trip+interval {
				t.Errorf("%s: answered %v after that: %v", name, took, err)
			}
		}
	})
}

// TestPingWithoutAnswer: a listener that answers no pings, as a closed port, is asked until there is no time any more, once
// in each interval.
func TestPingWithoutAnswer(t *testing.T) {
	const interval, most = 10 * time.Millisecond, time.Second
	gathered(t, func(c crowd) {
		before := c.net.Stats().Sent
		if took, err := c.pings("client", interval, most); !errors.Is(err, context.DeadlineExceeded) || took != most {
			t.Errorf("%v after %v", err, took)
		}
		if err := quicnet.Ping(cancelled(c), c.net.Host("client"), "server:9", interval); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if sent := c.net.Stats().Sent - before; sent < 98 || sent > 102 {
			t.Errorf("asked %d times in %v", sent, most)
		}
		c.honest("client")
	})
}

func cancelled(c crowd) context.Context {
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	return ctx
}

// stranger is a bare socket, which says to the listener what it likes.
type stranger struct {
	*testing.T
	net.PacketConn
	to net.Addr
}

func (c crowd) stranger(host string) stranger {
	socket, to, err := c.net.Host(host).DialPacket(c.Context(), "server:61000")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { socket.Close() }) //nolint:errcheck // the network is gone by then
	return stranger{c.T, socket, to}
}

func (s stranger) say(packet []byte) {
	s.Helper()
	if _, err := s.WriteTo(packet, s.to); err != nil {
		s.Error(err)
	}
}

// answers returns what has come, and comes within a second.
func (s stranger) answers() (packets [][]byte) {
	s.Helper()
	if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		s.Error(err)
	}
	for p := make([]byte, 2000); ; {
		n, _, err := s.ReadFrom(p)
		if err != nil {
			return packets
		}
		packets = append(packets, bytes.Clone(p[:n]))
	}
}

// question is what a ping sends, answer what it waits for.
func question(nonce byte) []byte { return append([]byte{4}, bytes.Repeat([]byte{nonce}, 16)...) }
func answer(nonce byte) []byte   { return append([]byte{5}, bytes.Repeat([]byte{nonce}, 16)...) }

// TestPingAnswer: a question has one answer, of the same size. Nothing else has one, least of all an answer: two listeners
// would tell each other the same for ever.
func TestPingAnswer(t *testing.T) {
	pinged(t, func(c crowd) {
		s := c.stranger("client")
		for name, packet := range map[string][]byte{
			"an answer":         answer(1),
			"no nonce":          {4},
			"too short":         question(1)[:16],
			"too long":          append(question(1), 1),
			"much too long":     append(question(1), make([]byte, 1400)...),
			"nothing":           {},
			"STUN":              append([]byte{0, 1}, make([]byte, 18)...),
			"another kind":      append([]byte{6}, make([]byte, 16)...),
			"DTLS":              append([]byte{22}, make([]byte, 16)...),
			"QUIC, as it seems": append([]byte{0x44}, make([]byte, 16)...),
		} {
			s.say(packet)
			if got := s.answers(); len(got) > 0 {
				t.Errorf("%s: answered with %x", name, got)
			}
		}
		for range 2 { // doubled
			s.say(question(7))
		}
		if got := s.answers(); len(got) != 2 || !bytes.Equal(got[0], answer(7)) || !bytes.Equal(got[1], answer(7)) {
			t.Errorf("answered with %x", got)
		}
	})
}

// TestPingFlood: what a flood of questions costs is bounded, a client's handshake is not held up by it, nor is its ping
// afterwards.
func TestPingFlood(t *testing.T) {
	pinged(t, func(c crowd) {
		const seconds, each = 2, 40 // in a millisecond
		s := c.stranger("attacker")
		flood := func(until time.Time) {
			for ; time.Now().Before(until); time.Sleep(time.Millisecond) {
				for range each {
					s.say(question(1))
				}
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			flood(time.Now().Add(seconds * time.Second))
		}()
		time.Sleep(time.Second)
		if took := c.honest("client"); took > 50*time.Millisecond {
			t.Errorf("a handshake took %v", took)
		}
		<-done
		if got, asked := len(s.answers()), seconds*1000*each; got > seconds*5000+500 || got < 5000 {
			t.Errorf("of %d questions %d were answered", asked, got)
		}
		if took, err := c.pings("client", time.Second, time.Minute); err != nil || took > 21*time.Millisecond {
			t.Errorf("answered after %v: %v", took, err)
		}
	})
}

// TestPingBelievesNoOther: only the answer to its own question ends a ping.
func TestPingBelievesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer n.Close()
		socket, err := n.Host("server").ListenPacket(":61000")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- quicnet.Ping(t.Context(), n.Host("client"), "server:61000", 100*time.Millisecond) }()
		asked := make([]byte, 100)
		size, client, err := socket.ReadFrom(asked)
		if err != nil || size != 17 {
			t.Fatalf("asked with %d bytes: %v", size, err)
		}
		say := func(packet []byte) {
			if _, err := socket.WriteTo(packet, client); err != nil {
				t.Error(err)
			}
		}
		right := append([]byte{5}, asked[1:size]...)
		for name, packet := range map[string][]byte{
			"another's":      answer(1),
			"the question":   asked[:size],
			"too long":       append(bytes.Clone(right), 0),
			"too short":      right[:16],
			"nothing":        {},
			"a QUIC packet":  append([]byte{0xc0}, make([]byte, 1200)...),
			"only its nonce": asked[1:size],
		} {
			say(packet)
			time.Sleep(10 * time.Millisecond)
			select {
			case err := <-ended:
				t.Fatalf("it ends with %s: %v", name, err)
			default:
			}
		}
		for range 2 { // doubled
			say(right)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestPingOfTheSystem: on real sockets, a port that refuses is asked until somebody listens there.
func TestPingOfTheSystem(t *testing.T) {
	server, _ := ends(t)
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.LocalAddr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- quicnet.Ping(t.Context(), quicnet.OS{}, addr, time.Millisecond) }()
	l, err := quicnet.Listen(quicnet.OS{}, addr, server, quicnet.ServeClientsConfig(10))
	if err != nil {
		t.Fatal(err)
	}
	answering := make(chan error, 1)
	go func() { answering <- l.AnswerPings(t.Context()) }()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-answering; err == nil {
		t.Error("the listener is closed, and answers")
	}
}
