package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// versions of HTTP that the USER port speaks.
var versions = []string{"HTTP/1.1", "HTTP/2.0", "HTTP/3.0"}

// transport speaks a version of HTTP with the USER port, from an address, and gives each stream a small window if it is told to.
func transport(version string, at from, source identity.Source, small bool) (by http.RoundTripper, closing func()) {
	if version == "HTTP/3.0" {
		conf := quicnet.ClientConfig()
		conf.MaxIncomingUniStreams = 3 // of the server: control, and two of QPACK
		if small {
			conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = window, window
		}
		tr := &http3.Transport{
			TLSClientConfig: identity.ClientTLS(source, http3.NextProtoH3, identity.Director), QUICConfig: conf,
			Dial: func(ctx context.Context, addr string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
				conn, err := quicnet.Dial(ctx, at, addr, tlsConf, conf)
				if err != nil {
					return nil, err
				}
				return conn.Conn, nil
			},
		}
		return tr, func() { _ = tr.Close() }
	}
	var protocols http.Protocols
	protocols.SetHTTP1(version == "HTTP/1.1")
	protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
	tr := &http.Transport{
		Protocols:   &protocols,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: at.ip}, Timeout: 5 * time.Second}).DialContext,
	}
	if small {
		tr.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 64 << 10} // the least that there is
	}
	return tr, tr.CloseIdleConnections
}

// complete asks for a streamed completion of so many tokens.
func complete(ctx context.Context, by http.RoundTripper, version, user string, tokens int) (*http.Response, error) {
	scheme := "http"
	if version == "HTTP/3.0" {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+user+"/v1/completions", strings.NewReader(completion(tokens)))
	if err != nil {
		return nil, err
	}
	return by.RoundTrip(req)
}

func completion(tokens int) string {
	return fmt.Sprintf(`{"prompt":"The river","stream":true,"max_tokens":%d,"seed":1,"ignore_eos":true}`, tokens)
}

// statusError is an answer that is no stream.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d: %s", e.status, e.text) }

// web reads one stream over a version of HTTP, on a connection of its own.
func (h *honest) web(ctx context.Context, version string, at from) error {
	by, closing := transport(version, at, h.cluster.TLS, false)
	defer closing()
	start := time.Now()
	resp, err := complete(ctx, by, version, h.cluster.Addr(), honestTokens)
	if err != nil {
		return fmt.Errorf("%s: %w", version, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return &statusError{resp.StatusCode, string(text)}
	}
	var before time.Time
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case data == "[DONE]":
			return nil
		case strings.Contains(data, `"error"`):
			return fmt.Errorf("%s: %s", version, data)
		case ok:
			now := time.Now()
			h.token(start, before, now)
			before = now
		}
	}
	return errors.Join(fmt.Errorf("%s: the stream broke off", version), lines.Err())
}

// dial connects to the USER port over TCP.
func (a *attacker) dial(ctx context.Context) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: evil.ip}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", a.user)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// withSockets runs something on n connections over TCP at once. It ends when they are closed.
func (a *attacker) withSockets(ctx context.Context, n int, one func(ctx context.Context, i int, conn *net.TCPConn)) {
	everywhere(ctx, n, func(ctx context.Context, i int) {
		conn, err := a.dial(ctx)
		if err != nil {
			pause(ctx, time.Second)
			return
		}
		defer conn.Close() //nolint:errcheck // it is the attacker's
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		one(ctx, i, conn)
	})
}

// trickle writes a byte now and then, until it cannot.
func trickle(ctx context.Context, conn io.Writer) {
	for ctx.Err() == nil {
		if _, err := conn.Write([]byte("x")); err != nil {
			return
		}
		pause(ctx, 200*time.Millisecond)
	}
}

const (
	postHead = "POST /v1/completions HTTP/1.1\r\nHost: director\r\nContent-Type: application/json\r\n"
	crowdOf  = 400 // connections
)

// webHeaders sends headers slowly, or too many of them.
func (a *attacker) webHeaders(ctx context.Context) {
	huge := strings.Repeat("X-Long: "+strings.Repeat("x", 1000)+"\r\n", 100)
	a.withSockets(ctx, crowdOf, func(ctx context.Context, i int, conn *net.TCPConn) {
		_, _ = io.WriteString(conn, postHead)
		if i%4 == 0 {
			_, _ = io.WriteString(conn, huge)
			return
		}
		_, _ = io.WriteString(conn, "X-Slow: ")
		trickle(ctx, conn)
	})
}

// webBodies sends bodies slowly, or stops half way.
func (a *attacker) webBodies(ctx context.Context) {
	half := strings.Repeat(" ", 500_000)
	a.withSockets(ctx, crowdOf, func(ctx context.Context, i int, conn *net.TCPConn) {
		_, _ = io.WriteString(conn, postHead+"Content-Length: 1000000\r\n\r\n")
		if i%2 == 0 {
			_, _ = io.WriteString(conn, half)
			_, _ = io.Copy(io.Discard, conn)
			return
		}
		trickle(ctx, conn)
	})
}

// webIdle opens connections, asks for something and keeps them.
func (a *attacker) webIdle(ctx context.Context) {
	a.withSockets(ctx, maxConnections, func(_ context.Context, _ int, conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: director\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
}

// webGarbage sends what is no HTTP, and requests without end whose answers it does not read.
func (a *attacker) webGarbage(ctx context.Context) {
	said := []string{
		strings.Repeat("\x00\xff garbage\r\n", 1000), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00\x40\x00\xff", 10_000),
		postHead + "Content-Length: 2\r\n\r\n{}" + strings.Repeat("}{", 10_000),
		strings.Repeat("GET /v1/models HTTP/1.1\r\nHost: director\r\n\r\n", 1000),
	}
	a.withSockets(ctx, 40, func(ctx context.Context, i int, conn *net.TCPConn) {
		_ = conn.SetReadBuffer(1 << 10)
		for err := error(nil); err == nil && ctx.Err() == nil; pause(ctx, 200*time.Millisecond) { // faster would be a flood, whatever it says
			_, err = io.WriteString(conn, said[i%len(said)])
		}
	})
}

// readers is how many clients of HTTP read nothing.
const readers = 1000

// webUnread asks for long streams over all versions of HTTP, and reads nothing of them.
func (a *attacker) webUnread(ctx context.Context) {
	var all sync.WaitGroup
	for _, version := range versions[1:] {
		all.Go(func() { // many streams on a few connections
			by := make([]http.RoundTripper, 8)
			for i := range by {
				var closing func()
				by[i], closing = transport(version, evil, a.tls, true)
				defer closing()
			}
			everywhere(ctx, readers/4, func(ctx context.Context, i int) {
				if resp, err := complete(ctx, by[i%len(by)], version, a.user, 100_000); err == nil {
					defer resp.Body.Close()
					if resp.StatusCode == http.StatusOK {
						<-ctx.Done()
					}
				}
				pause(ctx, time.Second)
			})
		})
	}
	a.withSockets(ctx, readers/2, func(ctx context.Context, _ int, conn *net.TCPConn) {
		_ = conn.SetReadBuffer(1 << 10)
		body := completion(100_000)
		_, _ = fmt.Fprintf(conn, postHead+"Content-Length: %d\r\n\r\n%s", len(body), body)
		pause(ctx, 5*time.Second) // what was refused is tried again
	})
	all.Wait()
}

// webReset asks over HTTP/2 and HTTP/3, and takes it back at once.
func (a *attacker) webReset(ctx context.Context) {
	var all sync.WaitGroup
	for _, version := range versions[1:] {
		by, closing := transport(version, evil, a.tls, true)
		defer closing()
		all.Go(func() {
			everywhere(ctx, 40, func(ctx context.Context, i int) {
				ctx, cancel := context.WithTimeout(ctx, time.Duration(i)*100*time.Microsecond)
				defer cancel()
				if resp, err := complete(ctx, by, version, a.user, 100_000); err == nil {
					_ = resp.Body.Close()
				}
			})
		})
	}
	all.Wait()
}

// webHalf asks, and closes the half of the connection on which it writes, or resets all of it.
func (a *attacker) webHalf(ctx context.Context) {
	a.withSockets(ctx, 100, func(ctx context.Context, i int, conn *net.TCPConn) {
		body := completion(100_000)
		_, _ = fmt.Fprintf(conn, postHead+"Content-Length: %d\r\n\r\n%s", len(body), body)
		pause(ctx, 100*time.Millisecond)
		if i%2 == 0 {
			_ = conn.SetLinger(0)
			return
		}
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
}
