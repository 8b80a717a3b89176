package mgmt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/simtest"
)

// port is a MGMT port at server:61001 of a simulated network.
type port struct {
	*testing.T

	net *simtest.Net
}

// few descriptors allow 16 connections, 12 of them from one address.
const few = 64

// servePort runs test in a bubble with the port of a process that may have so many descriptors. /v1/thing has the document.
// wrap may put something around the port's listener.
func servePort(t *testing.T, descriptors uint64, document any, wrap func(net.Listener) net.Listener, test func(p *port)) {
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}, Buffer: 64 << 10})
		defer n.Close()
		l, err := n.Host("server").ListenStream(":61001")
		require.NoError(t, err)
		if wrap != nil {
			l = wrap(l)
		}
		mux := mgmt.NewMux(fine, noted(fine), anybody())
		mux.Document("/v1/thing", func(*http.Request) (any, error) { return document, nil })
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		server := mgmt.HTTP{Handler: mux, Log: zap.NewNop(), Descriptors: descriptors}
		go func() { served <- server.Serve(ctx, l) }()
		defer func() {
			stop()
			require.NoError(t, <-served)
		}()
		test(&port{T: t, net: n})
	})
}

// dial connects from a host, and asks for what is given.
func (p *port) dial(from, request string) net.Conn {
	p.Helper()
	conn, err := p.net.Host(from).DialStream(p.Context(), "server:61001")
	require.NoError(p, err)
	_, err = io.WriteString(conn, request)
	require.NoError(p, err)
	return conn
}

// answer reads one answer.
func (p *port) answer(conn net.Conn) (status int, body string) {
	p.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(p, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(p, err)
	return resp.StatusCode, string(text)
}

// healthy asks for health from a host, as a probe does, and wants the answer within so much time.
func (p *port) healthy(from string, within time.Duration) {
	p.Helper()
	start := time.Now()
	conn := p.dial(from, get("/readyz"))
	status, body := p.answer(conn)
	require.NoError(p, conn.Close())
	require.Equal(p, "200 ok\n", fmt.Sprint(status, " ", body))
	require.LessOrEqual(p, time.Since(start), within)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// open returns which of the connections the server has not closed.
func open(conns []net.Conn) (left []int) {
	synctest.Wait()
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(time.Nanosecond))
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); errors.As(err, &timeout) && timeout.Timeout() {
			left = append(left, i)
		}
	}
	return left
}

// TestFloodOfConnections has a crowd hold connections of every sort; health is answered at once, to others and to those
// behind the same address.
func TestFloodOfConnections(t *testing.T) {
	for name, c := range map[string]struct {
		request string
		answers bool
		hosts   int
		left    int
	}{
		"kept alive, of one address":      {get("/livez"), true, 1, 12},
		"kept alive, of many addresses":   {get("/livez"), true, 100, 16},
		"silent, of one address":          {"", false, 1, 12},
		"half a request, of many":         {"GET /livez HT", false, 100, 16},
		"a body that does not come":       {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", true, 1, 12},
		"requests whose answer is unread": {strings.Repeat(get("/livez"), 10), false, 100, 16},
	} {
		t.Run(name, func(t *testing.T) {
			servePort(t, few, nil, nil, func(p *port) {
				t := p.T
				var conns []net.Conn
				for i := range 100 {
					conn := p.dial(fmt.Sprint("attacker-", i%c.hosts), c.request)
					conns = append(conns, conn)
					if c.answers {
						p.answer(conn)
					}
				}
				p.healthy("probe", 10*time.Millisecond)
				p.healthy("attacker-0", 10*time.Millisecond)
				for range 20 { // the probe's own connections, kept alive
					conns = append(conns, p.dial("probe", get("/livez")))
				}
				p.healthy("other", 10*time.Millisecond)
				time.Sleep(time.Minute)
				require.Empty(t, open(conns), "none is kept for ever")
			})
		})
	}
}

// TestIdleConnectionsGoFirst closes the connection that was idle longest, not one that is in use.
func TestIdleConnectionsGoFirst(t *testing.T) {
	servePort(t, few, nil, nil, func(p *port) {
		t := p.T
		conns := []net.Conn{p.dial("a", "GET /livez HT")} // in use
		for range 11 {
			conn := p.dial("a", get("/livez"))
			p.answer(conn)
			conns = append(conns, conn)
			time.Sleep(time.Millisecond)
		}
		for i := range 3 {
			conn := p.dial("a", get("/livez"))
			p.answer(conn)
			conns = append(conns, conn)
			if i == 1 {
				_, err := io.WriteString(conns[3], get("/livez")) // is used again
				require.NoError(t, err)
				p.answer(conns[3])
			}
		}
		require.Equal(t, []int{0, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, open(conns))
	})
}

// TestHealthDuringAFlood has strangers open connections as fast as they can, from a few addresses, with and without a
// request. Whoever asks for health meanwhile gets its answer, from the same addresses too.
func TestHealthDuringAFlood(t *testing.T) {
	for name, request := range map[string]string{"silent": "", "asking": get("/v1/thing")} {
		t.Run(name, func(t *testing.T) {
			servePort(t, few, strings.Repeat("x", 4<<10), nil, func(p *port) {
				t := p.T
				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				for i := range 60 {
					host := p.net.Host(fmt.Sprint("attacker-", i%3))
					flood.Go(func() {
						for ctx.Err() == nil {
							conn, err := host.DialStream(ctx, "server:61001")
							if err != nil {
								continue
							}
							_, _ = io.WriteString(conn, request)
							time.Sleep(50 * time.Millisecond)
							_ = conn.Close()
						}
					})
				}
				time.Sleep(time.Second)
				for i := range 50 {
					p.healthy("probe", time.Second)
					p.healthy(fmt.Sprint("attacker-", i%3), time.Second)
				}
				stop()
				flood.Wait()
			})
		})
	}
}

// scarce is a listener in a process that may have so many connections open.
type scarce struct {
	net.Listener

	mu         sync.Mutex
	left       int
	exhausted  int
	unaccepted net.Conn
}

type scarceConn struct {
	net.Conn

	once sync.Once
	l    *scarce
}

func (l *scarce) Accept() (net.Conn, error) {
	l.mu.Lock()
	conn := l.unaccepted
	l.mu.Unlock()
	if conn == nil {
		var err error
		if conn, err = l.Listener.Accept(); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unaccepted = conn; l.left == 0 {
		l.exhausted++
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	l.unaccepted = nil
	l.left--
	return &scarceConn{Conn: conn, l: l}, nil
}

func (c *scarceConn) Close() error {
	c.once.Do(func() {
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.l.left++
	})
	return c.Conn.Close()
}

// TestNoDescriptorLeft has the rest of the process take nearly all descriptors.
func TestNoDescriptorLeft(t *testing.T) {
	var l *scarce
	wrap := func(inner net.Listener) net.Listener {
		l = &scarce{Listener: inner, left: 4}
		return l
	}
	servePort(t, few, nil, wrap, func(p *port) {
		t := p.T
		var conns []net.Conn
		for i := range 30 {
			conn := p.dial(fmt.Sprint("attacker-", i), get("/livez"))
			p.answer(conn)
			conns = append(conns, conn)
		}
		p.healthy("probe", 20*time.Millisecond)
		require.LessOrEqual(t, len(open(conns)), 4)
		l.mu.Lock()
		require.Greater(t, l.exhausted, 20)
		taken := l.left
		l.left = 0 // others take what is left, and more than that: only time helps
		l.mu.Unlock()
		conn := p.dial("probe", get("/readyz"))
		time.Sleep(5 * time.Second)
		l.mu.Lock()
		l.left += taken + 1
		l.mu.Unlock()
		start := time.Now()
		p.answer(conn)
		require.LessOrEqual(t, time.Since(start), 1100*time.Millisecond)
	})
}

// megabyte is a document of that size.
func megabyte() []string {
	all := make([]string, 1024)
	for i := range all {
		all[i] = strings.Repeat("x", 1016)
	}
	return all
}

// TestSlowReaders has readers that never read, and some that read a little, take all the room there is. They cost a
// bounded amount of memory, health is answered, and who reads gets its document.
func TestSlowReaders(t *testing.T) {
	servePort(t, 1024, megabyte(), nil, func(p *port) {
		t := p.T
		var before, with runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []net.Conn
		refused := 0
		for i := range 60 {
			conn := p.dial(fmt.Sprint("attacker-", i), "GET /v1/thing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			conns = append(conns, conn)
			time.Sleep(5 * time.Millisecond)
			p.healthy("probe", 10*time.Millisecond)
		}
		runtime.GC()
		runtime.GC() // pools give up what they have with the second
		runtime.ReadMemStats(&with)
		held := int64(with.HeapAlloc) - int64(before.HeapAlloc)
		require.LessOrEqual(t, held, int64(20<<20), "8 MiB of answers, and the buffers of 60 connections")

		for ; refused < 4; refused++ { // as whoever is told to come back does
			conn := p.dial("operator", get("/v1/thing"))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // closed with the connection
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			status, body := resp.StatusCode, string(text)
			if status == http.StatusOK {
				var document []string
				require.NoError(t, json.Unmarshal([]byte(body), &document))
				require.Len(t, document, 1024)
				break
			}
			require.Equal(t, http.StatusServiceUnavailable, status)
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			require.Contains(t, body, "ask again in a second")
			time.Sleep(time.Second)
		}
		require.Less(t, refused, 4)
		require.Positive(t, refused, "the readers had not taken all the room")
		time.Sleep(6 * time.Second)
		require.Empty(t, stuck(conns), "who takes nothing for five seconds is cut off")
	})
}

// stuck returns which connections are open although their answer has not been read.
func stuck(conns []net.Conn) (left []int) {
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, err := io.Copy(io.Discard, conn)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			left = append(left, i)
		}
	}
	return left
}

// TestReadersOnSlowNetworks: 64 KiB in five seconds are enough, for as long as it takes.
func TestReadersOnSlowNetworks(t *testing.T) {
	servePort(t, few, megabyte(), nil, func(p *port) {
		t := p.T
		conn := p.dial("reader", get("/v1/thing"))
		start := time.Now()
		for range 62 {
			_, err := io.ReadFull(conn, make([]byte, 16<<10))
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Greater(t, time.Since(start), time.Minute)
	})
}

// TestRequestsAreBounded sends headers and bodies that are too large.
func TestRequestsAreBounded(t *testing.T) {
	servePort(t, few, 1, nil, func(p *port) {
		t := p.T
		status, _ := p.answer(p.dial("a", "GET /livez HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n"))
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, status)
		status, _ = p.answer(p.dial("a", "GET /livez HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 8<<10)+"\r\n\r\n"))
		require.Equal(t, http.StatusOK, status)
	})
}
