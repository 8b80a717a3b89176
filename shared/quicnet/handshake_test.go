package quicnet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// unfinishing is a network from which the first packets of a handshake go out, and on which then nothing more is said: the
// peer seems to be at an address where nobody answers, or, with answers, where all but the last flight is sent.
type unfinishing struct {
	quicnet.Network

	sends int // packets that each socket sends before it falls silent
}

func (n unfinishing) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	conn, remote, err := n.Network.DialPacket(ctx, addr)
	return &silentConn{PacketConn: conn, left: n.sends}, remote, err
}

// flight is how many packets the first flight of a client has: its key share does not fit one.
const flight = 2

type silentConn struct {
	net.PacketConn

	left int // read and written by the one goroutine that sends
}

func (c *silentConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	if c.left--; c.left < 0 {
		return len(p), nil
	}
	return c.PacketConn.WriteTo(p, addr)
}

// attack begins n handshakes from nw that are never finished, and returns when that is done.
func attack(ctx context.Context, nw quicnet.Network, addr string, tlsConf *tls.Config, n int) {
	var attempts sync.WaitGroup
	for range n {
		attempts.Go(func() {
			if conn, err := quicnet.Dial(ctx, nw, addr, tlsConf, quicnet.ClientConfig()); err == nil {
				conn.Close(0, "") //nolint:errcheck // it was not to succeed
			}
		})
	}
	attempts.Wait()
}

// crowd is a listener in a simulated network.
type crowd struct {
	*testing.T

	net    *simtest.Net
	client *tls.Config
	l      *quicnet.Listener

	accepted *sync.Map // of their proofs
}

// gathered runs f beside a listener on host "server" that accepts whoever comes.
func gathered(t *testing.T, f func(crowd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, client := ends(t)
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: 10 * time.Millisecond}, Buffer: 16 << 20})
		defer n.Close()
		l, err := quicnet.Listen(n.Host("server"), ":61000", server, quicnet.ServeClientsConfig(10))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // nothing depends on it
		var accepted sync.Map
		accepting, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for {
				conn, err := l.Accept(accepting)
				if err != nil {
					return
				}
				proof, _ := quicnet.ReadProof(conn)
				accepted.Store(proof, true)
			}
		}()
		f(crowd{t, n, client, l, &accepted})
	})
}

// honest dials from a host and returns how long it took. Both ends have to agree on which connection that is.
func (c crowd) honest(host string) time.Duration {
	c.Helper()
	start := time.Now()
	conn, err := quicnet.Dial(c.Context(), c.net.Host(host), "server:61000", c.client, quicnet.ClientConfig())
	if err != nil {
		c.Errorf("%s does not get in: %v", host, err)
		return 0
	}
	took := time.Since(start)
	time.Sleep(50 * time.Millisecond) // in the bubble: the last flight is there
	if _, ok := c.accepted.Load(proof(c.T, conn.Conn)); !ok {
		c.Errorf("the ends of %s's connection disagree", host)
	}
	if err := conn.Close(wire.QUICOk, ""); err != nil {
		c.Error(err)
	}
	return took
}

// TestUnprovedHandshakesAreBounded has many hosts, as many as somebody who forges addresses likes, begin handshakes whose
// answers nobody hears. Few of them are open; who proves his address gets in, a round trip later.
func TestUnprovedHandshakesAreBounded(t *testing.T) {
	gathered(t, func(c crowd) {
		if took := c.honest("early"); took >= 40*time.Millisecond {
			c.Errorf("a handshake without a crowd took %v", took)
		}
		ctx, stop := context.WithTimeout(c.Context(), time.Second)
		defer stop()
		var flood sync.WaitGroup
		for i := range 50 {
			flood.Go(func() {
				attack(ctx, unfinishing{c.net.Host("forged-" + string(rune('A'+i))), flight}, "server:61000", c.client, 20)
			})
		}
		time.Sleep(500 * time.Millisecond) // in the bubble
		if h := c.l.Handshakes(); h.Open > 64 || h.Retries < 900 || h.Refused != 0 {
			c.Errorf("of 1,000 there are %+v", h)
		}
		if took := c.honest("honest"); took < 40*time.Millisecond || took > 200*time.Millisecond {
			c.Errorf("an honest client's handshake took %v", took)
		}
		if h := c.l.Handshakes(); h.Open > 64 {
			c.Errorf("a complete handshake counts as open: %+v", h)
		}
		flood.Wait()
		time.Sleep(10 * time.Second)
		if h := c.l.Handshakes(); h.Open != 0 {
			c.Errorf("handshakes stay open: %+v", h)
		}
	})
}

// TestOneAddressCannotTakeAll has one host prove its address five hundred times, and then finish none of its handshakes.
func TestOneAddressCannotTakeAll(t *testing.T) {
	gathered(t, func(c crowd) {
		ctx, stop := context.WithTimeout(c.Context(), 2*time.Second)
		defer stop()
		var flood sync.WaitGroup
		flood.Go(func() { attack(ctx, unfinishing{c.net.Host("greedy"), 2 * flight}, "server:61000", c.client, 500) })
		time.Sleep(500 * time.Millisecond)
		h := c.l.Handshakes()
		if h.Open < 256 || h.Open > 256+16 || h.Refused == 0 {
			c.Errorf("of 500 there are %+v", h)
		}
		if took := c.honest("honest"); took > 100*time.Millisecond {
			c.Errorf("another client's handshake took %v", took)
		}
		flood.Wait()
		time.Sleep(10 * time.Second)
		c.honest("greedy")
	})
}

// TestManyAddressesLeaveRoom has thirty hosts do what one did above: what all of them may hold is bounded, and a host that
// has nothing open yet gets in.
func TestManyAddressesLeaveRoom(t *testing.T) {
	gathered(t, func(c crowd) {
		ctx, stop := context.WithTimeout(c.Context(), 2*time.Second)
		defer stop()
		var flood sync.WaitGroup
		for i := range 30 {
			flood.Go(func() {
				attack(ctx, unfinishing{c.net.Host("greedy-" + string(rune('A'+i))), 2 * flight}, "server:61000", c.client, 45)
			})
		}
		time.Sleep(500 * time.Millisecond)
		if h := c.l.Handshakes(); h.Open > 1024+64 || h.Refused == 0 {
			c.Errorf("of 1,350 there are %+v", h)
		}
		c.honest("honest")
		flood.Wait()
	})
}

// TestCrowdOfOneAddressGetsIn is what a restarted director sees from behind one address.
func TestCrowdOfOneAddressGetsIn(t *testing.T) {
	gathered(t, func(c crowd) {
		var all sync.WaitGroup
		for range 400 {
			all.Go(func() { c.honest("office") })
		}
		all.Wait()
		if h := c.l.Handshakes(); h.Open != 0 || h.Refused == 0 {
			c.Errorf("%+v: were there enough of them?", h)
		}
	})
}

// TestFloodCostsLittleMemory sends the first flights of 2,000 handshakes, from a hundred addresses, to a real socket.
func TestFloodCostsLittleMemory(t *testing.T) {
	server, client := ends(t)
	l, err := quicnet.Listen(quicnet.OS{}, "127.0.0.1:0", server, quicnet.ServeClientsConfig(10))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing depends on it
	flights := firstFlights(t, client, 2000)
	before := heap()
	for i, packets := range flights {
		from := &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i/20))}
		socket, err := net.DialUDP("udp", from, l.Addr().(*net.UDPAddr))
		if err != nil {
			t.Skip("this system has one loopback address only: ", err)
		}
		for _, packet := range packets {
			if _, err := socket.Write(packet); err != nil {
				t.Fatal(err)
			}
		}
		if err := socket.Close(); err != nil {
			t.Fatal(err)
		}
		for ; t.Context().Err() == nil; runtime.Gosched() { // none shall be lost in the listener's socket
			if h := l.Handshakes(); h.Open+int(h.Retries) > i {
				break
			}
		}
	}
	runtime.GC() // as before, what is pooled is let go
	open, grown := l.Handshakes(), int64(heap())-int64(before)
	t.Logf("%+v: %d KiB", open, grown>>10)
	if open.Open > 64 || grown > 16<<20 {
		t.Errorf("%+v cost %d bytes", open, grown)
	}
	runtime.KeepAlive(flights)
}

// heap returns the bytes in use, with the stacks of goroutines.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// firstFlights returns the packets with which n handshakes begin.
func firstFlights(t *testing.T, client *tls.Config, n int) [][][]byte {
	t.Helper()
	flights := make([][][]byte, n)
	for i := range flights {
		ctx, cancel := context.WithCancel(t.Context())
		sink := &sinkConn{ended: make(chan struct{}), sent: func(packet []byte) {
			if flights[i] = append(flights[i], bytes.Clone(packet)); len(flights[i]) == flight {
				cancel()
			}
		}}
		tr := &quic.Transport{Conn: sink}
		if _, err := tr.Dial(ctx, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, client, quicnet.ClientConfig()); err == nil {
			t.Fatal("a handshake with nobody succeeds")
		}
		if err := errors.Join(tr.Close(), sink.Close()); err != nil {
			t.Fatal(err)
		}
		flights[i] = flights[i][:flight]
	}
	return flights
}

// sinkConn hands on what is sent, by one goroutine, and receives nothing.
type sinkConn struct {
	net.PacketConn

	sent  func([]byte)
	end   sync.Once
	ended chan struct{}
}

func (c *sinkConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.sent(p)
	return len(p), nil
}

func (c *sinkConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.ended
	return 0, nil, net.ErrClosed
}

func (c *sinkConn) LocalAddr() net.Addr             { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (c *sinkConn) SetReadDeadline(time.Time) error { return c.Close() }

func (c *sinkConn) Close() error {
	c.end.Do(func() { close(c.ended) })
	return nil
}
