package simtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/simtest"
)

// pair is a server and a client on a network, inside a bubble.
type pair struct {
	*testing.T
	net            *simtest.Net
	server, client *simtest.Host
}

// simulate runs a test on a network of two hosts with a delay of 10 ms, unless opts say otherwise.
func simulate(t *testing.T, opts simtest.Options, test func(pair)) {
	t.Helper()
	if opts.Path == (simtest.Path{}) {
		opts.Path.Delay = 10 * time.Millisecond
	}
	synctest.Test(t, func(t *testing.T) {
		if opts.Trace == nil {
			opts.Trace = t.Logf
		}
		n := simtest.New(1, opts)
		defer n.Close()
		test(pair{t, n, n.Host("server"), n.Host("client")})
	})
}

// listen returns the server's socket and all packets that it receives: text and time of arrival.
func (p pair) listen() (net.PacketConn, *received) {
	p.Helper()
	conn, err := p.server.ListenPacket(":62001")
	p.check(err)
	return conn, collect(conn)
}

// dial returns the client's connected socket.
func (p pair) dial() net.PacketConn {
	p.Helper()
	conn, addr, err := p.client.DialPacket(p.Context(), "server:62001")
	p.check(err)
	if udp, ok := addr.(*net.UDPAddr); !ok || udp.String() != "10.0.0.1:62001" {
		p.Fatalf("dialled %v", addr)
	}
	return conn
}

func (p pair) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p pair) send(conn net.PacketConn, texts ...string) {
	p.Helper()
	for _, s := range texts {
		if _, err := conn.WriteTo([]byte(s), nil); err != nil {
			p.Fatal(err)
		}
	}
}

func (p pair) wantError(err error, want error) {
	p.Helper()
	if !errors.Is(err, want) {
		p.Fatalf("got %v, want %v", err, want)
	}
}

// received is what a socket received until it failed.
type received struct {
	mu   sync.Mutex
	all  []string
	at   []time.Duration
	from net.Addr
	err  error
}

func collect(conn net.PacketConn) *received {
	r, start := new(received), time.Now()
	go func() {
		buf := make([]byte, 1500)
		for r.add(conn, buf, start) {
		}
	}()
	return r
}

func (r *received) add(conn net.PacketConn, buf []byte, start time.Time) bool {
	n, from, err := conn.ReadFrom(buf)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.err = err
		return false
	}
	r.all = append(r.all, string(buf[:n]))
	r.at = append(r.at, time.Since(start))
	r.from = from
	return true
}

// after lets time pass and returns what was received by then.
func (r *received) after(d time.Duration) []string {
	time.Sleep(d)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// failure is the error that ended it, if any.
func (r *received) failure() error {
	r.after(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// times and sender are about the packets received so far.
func (r *received) times() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at)
}

func (r *received) sender() net.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from
}

func (p pair) wantTexts(got []string, want ...string) {
	p.Helper()
	if !slices.Equal(got, want) {
		p.Fatalf("received %q, want %q", got, want)
	}
}

func numbered(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint(i)
	}
	return texts
}

func TestResolve(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.net.Alias("director", p.server, p.client)
		for _, tc := range []struct{ addr, want string }{
			{"server:61000", "[10.0.0.1:61000]"},
			{"director:1", "[10.0.0.1:1 10.0.0.2:1]"},
			{"10.0.0.1:7", "[10.0.0.1:7]"},
			{":7", "[10.0.0.2:7]"},
			{"localhost:7", "[10.0.0.2:7]"},
		} {
			if got, err := p.client.Resolve(p.Context(), tc.addr); err != nil || fmt.Sprint(got) != tc.want {
				t.Errorf("%s: got %v, %v; want %s", tc.addr, got, err, tc.want)
			}
		}
		var unknown *net.DNSError
		for _, dial := range []func(string) error{
			func(addr string) error { _, err := p.client.Resolve(p.Context(), addr); return err },
			func(addr string) error { _, _, err := p.client.DialPacket(p.Context(), addr); return err },
			func(addr string) error { _, err := p.client.DialStream(p.Context(), addr); return err },
		} {
			if err := dial("nobody:1"); !errors.As(err, &unknown) || !unknown.IsNotFound {
				t.Errorf("an unknown name: %v", err)
			}
			if err := dial("server:http"); err == nil {
				t.Error("a port by name was accepted")
			}
			if err := dial("server"); err == nil {
				t.Error("an address without a port was accepted")
			}
		}
	})
}

func TestSameHostByTheSameName(t *testing.T) {
	n := simtest.New(1, simtest.Options{})
	defer n.Close()
	a, b := n.Host("a"), n.Host("b")
	if a == b || n.Host("a") != a || b.Name() != "b" {
		t.Fatal("hosts and names do not match")
	}
	if ip := b.IP().String(); ip != "10.0.0.2" {
		t.Fatal(ip)
	}
}

func TestPortsAreBoundOnce(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		_, err := p.server.ListenStream("server:5")
		p.check(err)
		first, err := p.server.ListenPacket("0.0.0.0:5") // another protocol
		p.check(err)
		if _, err := p.server.ListenPacket(":5"); err == nil {
			t.Fatal("a port was bound twice")
		}
		if _, err := p.server.ListenPacket("client:6"); err == nil {
			t.Fatal("another host's address was bound")
		}
		p.check(first.Close())
		p.wantError(first.Close(), net.ErrClosed)
		_, err = p.server.ListenPacket(":5")
		p.check(err)
		a, err := p.server.ListenPacket(":0")
		p.check(err)
		b, err := p.server.ListenPacket(":0")
		p.check(err)
		if a.LocalAddr().String() == b.LocalAddr().String() {
			t.Fatal("port 0 gave the same port twice")
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		conn, got := p.listen()
		l, err := p.server.ListenStream(":1")
		p.check(err)
		stream, err := p.client.DialStream(p.Context(), "server:1")
		p.check(err)
		errs := make(chan error, 3)
		go func() { _, err := stream.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := p.client.DialStream(context.Background(), "10.9.9.9:1"); errs <- err }()
		_, err = l.Accept()
		p.check(err)
		go func() { _, err := l.Accept(); errs <- err }()
		synctest.Wait()
		p.net.Close()
		for range 3 {
			p.wantError(<-errs, net.ErrClosed)
		}
		p.wantError(got.failure(), net.ErrClosed)
		_, err = conn.WriteTo([]byte("x"), &net.UDPAddr{})
		p.wantError(err, net.ErrClosed)
		_, err = p.server.ListenPacket(":9")
		p.wantError(err, net.ErrClosed)
		p.net.Close()
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() && errors.Is(err, os.ErrDeadlineExceeded)
}
