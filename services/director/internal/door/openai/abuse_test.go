package openai

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement/placementtest"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// What the tests' director allows.
const (
	stallAfter = 20 * time.Second
	workerWait = 3 * time.Minute
	heartbeat  = 10 * time.Second
	bodyMost   = 100_000
	mostTokens = 5000
	windowMost = 256 // tokens
)

// besieged is the door of a director in a bubble, which speaks HTTP in the clear and HTTP/3.
type besieged struct {
	*testing.T
	net     *simtest.Net
	fleet   *fleettest.Fleet
	ledger  *shares.Ledger
	server  *Server
	sources map[identity.Role]identity.Source
	ctx     context.Context
	running sync.WaitGroup
}

// plenty is more of everything than most tests need; but is how much there is of something.
func plenty(but shares.Kind, n int64) shares.Limits {
	limits := shares.Limits{shares.Connections: 10_000, shares.Requests: 10_000, shares.Streams: 10_000, shares.Bytes: 1 << 30, shares.Sockets: 10_000}
	limits[but] = n
	return limits
}

func besiege(t *testing.T, limits shares.Limits, test func(b *besieged)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		clock := &clock.StallProof{}
		ctx, stop := context.WithCancel(t.Context())
		ticking, end := context.WithCancel(t.Context())
		b := &besieged{
			T: t, net: simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}, Buffer: 16 << 10}),
			fleet: fleettest.New(fleet.Deps{Clock: clock}), ledger: shares.New(limits), sources: sources, ctx: ctx,
		}
		sessions := session.NewManager(session.Config{
			MaxBytes: 1 << 20, Window: windowMost, ClientStall: stallAfter, ResumeWait: time.Minute, MaxSwapsPerMinute: 30, MaxWorkerDeaths: 3,
			Tokens: stream.Timeouts{FirstToken: 30 * time.Second, TokenMin: 10 * time.Second, Factor: 4},
			Handover: handover.Config{
				WorkerWait: workerWait, AttachTimeout: 2 * time.Second, FirstTokenTimeout: 30 * time.Second, ConfirmTimeout: time.Minute,
				TransferTimeout: time.Minute,
			},
		}, session.Deps{Placement: placementtest.New(t, 100, b.fleet.Fleet), Clock: clock, Log: zap.NewNop(), Events: event.NewBus()}, time.Minute)
		b.server = New(Config{
			Settings: settings.Fixed(config.Director{MaxBodyBytes: bodyMost, MaxTokens: mostTokens}), MaxStreams: 1000, Retention: time.Minute, Resume: true, Heartbeat: heartbeat,
			Model: b.fleet.Model, Models: b.fleet.Models, Promise: b.fleet.Promise, Events: event.NewBus(),
		}, b.ledger, sessions, &atomic.Uint64{}, clock, zap.NewNop())
		host := b.net.Host("director")
		tcp, err := host.ListenStream(":61000")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := quicnet.Listen(host, ":61000", identity.ServerTLS(sources[identity.Director], []string{http3.NextProtoH3}, nil), quicnet.ServeClientsConfig(1000))
		if err != nil {
			t.Fatal(err)
		}
		b.running.Go(func() { _ = clock.Run(ticking, func() {}) })
		b.running.Go(func() {
			for {
				conn, err := udp.Accept(ctx)
				if err != nil {
					return
				}
				b.running.Go(func() { b.server.ServeQUIC(conn) })
			}
		})
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := b.server.Serve(ctx, tcp, nil); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		defer func() { // also where the test has given up
			stop()
			serving.Wait()
			_ = udp.Close()
			end()
			b.fleet.Close()
			b.net.Close()
			b.running.Wait()
		}()
		test(b)
	})
}

// used returns how much of a kind is taken.
func (b *besieged) used(kind string) int64 { return b.ledger.Status()[kind].Used }

// worker registers a worker, which makes tokens as fast as it may.
func (b *besieged) worker() {
	b.Helper()
	fake, err := b.fleet.Connect(link.Peer{Label: "w", Capacity: 1 << 20, Version: 2, Models: []routing.Model{{Name: "m", Fingerprint: "f", Continuity: verified}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := fake.Report(&wirepb.WorkerStatus{Available: true}); err != nil {
		b.Fatal(err)
	}
	w := &engine{Fake: fake, attempts: map[uint64]*attempt{}}
	b.running.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-b.ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				if err := w.work(); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
}

// engine is a scripted worker's.
type engine struct {
	*fleettest.Fake
	attempts map[uint64]*attempt
}

type attempt struct{ session, epoch, next, may, most uint64 }

// work does what was asked for meanwhile, and makes the tokens that it may.
func (w *engine) work() error {
	mail, err := w.Received()
	if err != nil {
		return err
	}
	var said []byte
	for _, m := range mail {
		switch m := m.(type) {
		case *wirepb.Attach:
			w.attempts[m.GetSession()] = &attempt{m.GetSession(), m.GetEpoch(), 1, m.GetCredit(), uint64(m.GetRequest().GetMaxTokens())}
			said = wire.Append(said, &wirepb.Begin{Session: m.GetSession(), Epoch: m.GetEpoch(), NextSequence: 1, Digest: m.GetPrefix().GetDigest()})
		case *wirepb.Credit:
			for _, g := range m.GetGrants() {
				if a := w.attempts[g.GetSession()]; a != nil {
					a.may = g.GetSequence()
				}
			}
		case *wirepb.Cancel:
			delete(w.attempts, m.GetSession())
		}
	}
	for id, a := range w.attempts {
		for ; a.next <= min(a.may, a.most); a.next++ {
			said = wire.AppendLinkChunk(said, wire.Chunk{Session: id, Epoch: a.epoch, Sequence: a.next, Text: []byte(tokenText)})
		}
		if a.next > a.most {
			said = wire.Append(said, &wirepb.End{Session: id, Epoch: a.epoch, FinishReason: "length", Tokens: a.most})
			delete(w.attempts, id)
		}
	}
	return w.Say(said)
}

const tokenText = "0123456789abcdef"

// dial connects over TCP.
func (b *besieged) dial(host string) *bufferedConn {
	b.Helper()
	conn, err := b.net.Host(host).DialStream(b.Context(), "director:61000")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return &bufferedConn{conn, bufio.NewReader(conn), b}
}

// bufferedConn is a client's end.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
	b  *besieged
}

// say writes text.
func (c *bufferedConn) say(text string) {
	c.b.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.b.Fatal(err)
	}
}

// said is what a client is answered.
type said struct {
	status int
	header http.Header
	body   io.ReadCloser
}

// answer reads the head of an answer.
func (c *bufferedConn) answer() said {
	c.b.Helper()
	resp, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // it has nothing but the connection
	if err != nil {
		c.b.Fatal(err)
	}
	return said{resp.StatusCode, resp.Header, resp.Body}
}

// lasts returns how long it takes until the director has closed the connection; what it says before is read.
func (c *bufferedConn) lasts() time.Duration {
	start := time.Now()
	_, _ = io.Copy(io.Discard, c.in)
	return time.Since(start).Round(100 * time.Millisecond)
}

// post is a request for a completion.
func post(body string, headers ...string) string {
	return fmt.Sprintf("POST /v1/completions HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n%s\r\n%s", len(body), strings.Join(headers, ""), body)
}

// long asks for more than any buffer on the way takes.
const long = `{"prompt":"x","stream":true,"max_tokens":5000,"seed":1}`

// served fails unless a client of another address is served.
func (b *besieged) served() {
	b.Helper()
	c := b.dial("honest")
	c.say(post(`{"prompt":"x","max_tokens":3}`))
	got := c.answer()
	body, err := io.ReadAll(got.body)
	if err != nil || got.status != http.StatusOK || !bytes.Contains(body, []byte(strings.Repeat(tokenText, 3))) {
		b.Errorf("an honest client gets %d: %s (%v)", got.status, body, err)
	}
	_ = c.Close()
}

// client speaks a version of HTTP other than 1, on a connection of its own that gives each stream a small window.
func (b *besieged) client(version, host string) http.RoundTripper {
	if version == "h3" {
		const window = 1 << 10
		conf := quicnet.ClientConfig()
		conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = window, window
		conf.MaxIncomingUniStreams = 3
		tr := &http3.Transport{
			TLSClientConfig: identity.ClientTLS(b.sources[identity.Client], http3.NextProtoH3, identity.Director), QUICConfig: conf,
			Dial: func(ctx context.Context, _ string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
				c, err := quicnet.Dial(ctx, b.net.Host(host), "director:61000", tlsConf, conf)
				if err != nil {
					return nil, err
				}
				return c.Conn, nil
			},
		}
		b.Cleanup(func() { _ = tr.Close() })
		return tr
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{
		Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 64 << 10},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return b.net.Host(host).DialStream(ctx, "director:61000")
		},
	}
	b.Cleanup(tr.CloseIdleConnections)
	return tr
}

// ask asks for a completion.
func (b *besieged) ask(ctx context.Context, by http.RoundTripper, body io.Reader) (said, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://director:61000/v1/completions", body)
	if err != nil {
		b.Fatal(err)
	}
	if _, ok := by.(*http3.Transport); ok {
		req.URL.Scheme = "https"
	}
	resp, err := by.RoundTrip(req) //nolint:bodyclose // the caller does
	if err != nil {
		return said{}, err
	}
	return said{resp.StatusCode, resp.Header, resp.Body}, nil
}

// TestSlowLoris: headers have to come in time, and so has the rest.
func TestSlowLoris(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		b.worker()
		silent, header, body := b.dial("evil"), b.dial("evil"), b.dial("evil")
		trickle := func(c *bufferedConn, text string) {
			b.running.Go(func() {
				for _, r := range text + strings.Repeat("x", 1000) {
					if _, err := io.WriteString(c, string(r)); err != nil {
						return
					}
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		trickle(header, "POST /v1/completions HTTP/1.1\r\nHost: d\r\nX-A: ")
		body.say("POST /v1/completions HTTP/1.1\r\nHost: d\r\nContent-Length: 90000\r\n\r\n")
		trickle(body, "{")
		time.Sleep(time.Second)
		if n := b.used("half_open_requests"); n != 1 {
			t.Errorf("%d requests are half open", n)
		}
		b.served()
		for name, c := range map[string]*bufferedConn{"silent": silent, "header": header} {
			if d := time.Second + c.lasts(); d > readHeaderTimeout+time.Second {
				t.Errorf("%s: closed after %v", name, d)
			}
		}
		if got := body.answer(); got.status != http.StatusRequestTimeout {
			t.Errorf("a body that trickles: %v", got)
		}
		if n := b.used("half_open_requests"); n != 0 {
			t.Errorf("%d requests are half open", n)
		}
		body.lasts()
		_ = body.Close()
		synctest.Wait()
		if n := b.used("connections"); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestTrickle: over HTTP/2 and HTTP/3 a body has to come in time as well.
func TestTrickle(t *testing.T) {
	for _, version := range []string{"h2", "h3"} {
		t.Run(version, func(t *testing.T) {
			besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
				in, out := io.Pipe()
				b.running.Go(func() {
					for {
						if _, err := out.Write([]byte(" ")); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
				start := time.Now()
				got, err := b.ask(b.Context(), b.client(version, "evil"), in)
				if took := time.Since(start); took > readTimeout+time.Second {
					t.Errorf("told after %v", took)
				}
				if err != nil || got.status != http.StatusRequestTimeout {
					t.Errorf("%v, %v", got, err)
				}
				if n := b.used("half_open_requests"); n != 0 {
					t.Errorf("%d requests are half open", n)
				}
				_ = in.Close()
			})
		})
	}
}

// TestUnread: whoever reads nothing of a stream is ended, and what it had is given back.
func TestUnread(t *testing.T) {
	for _, version := range []string{"h1", "h2", "h3"} {
		t.Run(version, func(t *testing.T) {
			besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
				b.worker()
				if version == "h1" {
					b.dial("evil").say(post(long))
				} else {
					got, err := b.ask(b.Context(), b.client(version, "evil"), strings.NewReader(long))
					if err != nil {
						t.Fatal(err)
					}
					defer got.body.Close()
				}
				time.Sleep(stallAfter / 2)
				if n := b.used("streams"); n != 1 {
					t.Errorf("%d streams run", n)
				}
				b.served()
				time.Sleep(stallAfter/2 + 2*time.Second)
				if n := b.used("streams"); n != 0 {
					t.Errorf("%d streams run", n)
				}
				if n := b.used("bytes"); n > b.used("connections")*connectionBytes {
					t.Errorf("%d bytes are held", n)
				}
			})
		})
	}
}

// quic connects over QUIC, to speak HTTP/3 by hand; window is what it gives each stream.
func (b *besieged) quic(host string, window uint64) *quicnet.Conn {
	b.Helper()
	conf := quicnet.ClientConfig()
	conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = window, window
	conf.MaxIncomingUniStreams = 3
	conn, err := quicnet.Dial(b.Context(), b.net.Host(host), "director:61000", identity.ClientTLS(b.sources[identity.Client], http3.NextProtoH3, identity.Director), conf)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(wire.QUICOk, "") }) //nolint:errcheck // most are closed already
	return conn
}

// TestHalfOpenStreams: requests over HTTP/3 that have begun are given up, as is a connection that has none.
func TestHalfOpenStreams(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		b.worker()
		conn := b.quic("evil", 1<<10)
		start := time.Now()
		for range 1000 {
			s, err := conn.OpenStream()
			if err == nil {
				_, err = s.Write([]byte{1})
			}
			if err != nil {
				t.Fatal(err)
			}
			b.running.Go(func() {
				var reset *quic.StreamError
				if _, err := io.ReadAll(s); !errors.As(err, &reset) && conn.Context().Err() == nil {
					t.Errorf("a request that never comes ends with %v", err)
				}
				if took := time.Since(start); took > readTimeout+time.Second {
					t.Errorf("it is given up after %v", took)
				}
			})
		}
		time.Sleep(time.Second)
		b.served()
		<-conn.Context().Done()
		if took := time.Since(start); took > readTimeout+idleTimeout+time.Second {
			t.Errorf("the connection is closed after %v", took)
		}
	})
}

// TestReset: streams that are opened and aborted at once leave nothing behind, and others are served.
func TestReset(t *testing.T) {
	for _, version := range []string{"h2", "h3"} {
		t.Run(version, func(t *testing.T) {
			besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
				by := b.client(version, "evil")
				var all sync.WaitGroup
				for i := range 2000 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(b.Context(), time.Duration(i%20)*time.Millisecond)
						defer cancel()
						if got, err := b.ask(ctx, by, strings.NewReader(long)); err == nil {
							_ = got.body.Close()
						}
					})
				}
				all.Wait()
				time.Sleep(time.Second)
				for _, kind := range []string{"streams", "half_open_requests"} {
					if n := b.used(kind); n != 0 {
						t.Errorf("%d %s are left", n, kind)
					}
				}
				b.worker()
				b.served()
			})
		})
	}
}

// TestDocumentsUnread: whoever asks and never reads is ended, also where what is asked for is no stream.
func TestDocumentsUnread(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		c := b.dial("evil")
		b.running.Go(func() {
			for { // until what is written to it, and what it writes, fills all buffers on the way
				if _, err := io.WriteString(c, "GET /v1/models HTTP/1.1\r\nHost: d\r\n\r\n"); err != nil {
					return
				}
			}
		})
		time.Sleep(answerTimeout / 2)
		if n := b.used("connections"); n != 1 {
			t.Errorf("%d connections are there", n)
		}
		time.Sleep(answerTimeout/2 + time.Second)
		if n := b.used("connections"); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestResumedIsLong: whoever asks for the rest of a stream may read it for longer than a request may take to come; and one whose
// request never is whole may not.
func TestResumedIsLong(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		c := b.dial("client")
		c.say(post(long, "X-Connswap-Resume: 1\r\n"))
		c.answer()
		_ = c.Close()
		half := b.dial("client")
		get := "GET /v1/streams/" + b.only().id + " HTTP/1.1\r\nHost: d\r\n"
		half.say(get + "Content-Length: 9\r\n\r\n")
		if got := half.answer(); got.status != http.StatusRequestTimeout {
			t.Errorf("half a request: %v", got)
		}
		again := b.dial("client")
		again.say(get + "\r\n")
		got := again.answer()
		if got.status != http.StatusOK {
			t.Fatal(got)
		}
		start := time.Now()
		for pings := 0; pings < 2*int(readTimeout/heartbeat); pings++ {
			b := make([]byte, len(ping))
			if _, err := io.ReadFull(got.body, b); err != nil || string(b) != ping {
				t.Fatalf("%q, %v after %v", b, err, time.Since(start))
			}
		}
	})
}

// only returns the one exchange that runs.
func (b *besieged) only() *exchange {
	b.Helper()
	all := b.server.live.all()
	if len(all) != 1 {
		b.Fatalf("%d exchanges run", len(all))
	}
	return all[0]
}

// frame is one of HTTP/2 (RFC 9113 §4.1), on the first stream of a client's or on none.
func frame(kind, flags, stream byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, stream}) + payload
}

// TestHeartbeatUnread: whoever takes not even a heartbeat is ended, while its stream still waits for a worker.
func TestHeartbeatUnread(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		const path = "/v1/completions"
		c := b.dial("evil")
		c.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
			frame(4, 0, 0, "\x00\x04\x00\x00\x00\x00") + // SETTINGS_INITIAL_WINDOW_SIZE = 0
			frame(1, 4, 1, "\x83\x86\x01\x01d\x04"+string(rune(len(path)))+path) + // POST, http, authority and path
			frame(0, 1, 1, long))
		b.running.Go(func() { c.lasts() })
		time.Sleep(heartbeat + stallAfter/2)
		if n := b.used("streams"); n != 1 {
			t.Errorf("%d streams run", n)
		}
		time.Sleep(stallAfter/2 + 2*time.Second)
		if n := b.used("streams"); n != 0 {
			t.Errorf("%d streams run", n)
		}
	})
}

// TestUnfinishedBodies: what there is of requests counts before they are whole.
func TestUnfinishedBodies(t *testing.T) {
	const most = 4 << 20
	besiege(t, plenty(shares.Bytes, most), func(b *besieged) {
		b.worker()
		hogs := make([]*bufferedConn, 50)
		part := fmt.Sprintf("POST /v1/completions HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n%s", bodyMost, strings.Repeat("x", bodyMost-1))
		for i := range hogs {
			hogs[i] = b.dial("evil")
			b.running.Go(func() { _, _ = io.WriteString(hogs[i], part) })
		}
		time.Sleep(time.Second)
		used := b.used("bytes")
		if used < most/2 || used > most {
			t.Errorf("%d bytes of %d are taken", used, most)
		}
		b.served()
		refused := 0
		for _, c := range hogs {
			if line, _ := c.in.Peek(len("HTTP/1.1 429")); string(line) == "HTTP/1.1 429" {
				refused++
				got := c.answer()
				if body, _ := io.ReadAll(got.body); got.header.Get("Retry-After") == "" || !bytes.Contains(body, []byte("no room for more bytes")) {
					t.Errorf("%v: %s", got.header, body)
				}
			}
			_ = c.Close()
		}
		if refused == 0 {
			t.Error("nothing was refused")
		}
		time.Sleep(time.Second)
		if used := b.used("bytes"); used != 0 {
			t.Errorf("%d bytes are still taken", used)
		}
	})
}

// readsOnly is a connection whose client reads so many bytes, and then nothing.
type readsOnly struct {
	net.Conn
	left int
	done chan struct{}
}

func (c *readsOnly) Read(p []byte) (int, error) {
	if c.left <= 0 {
		<-c.done
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestSocketUnread: the same where it is not the windows of HTTP/2 that are full, but the connection under it.
func TestSocketUnread(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		b.worker()
		done := make(chan struct{})
		defer close(done)
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := b.net.Host("evil").DialStream(ctx, "director:61000")
			return &readsOnly{conn, 2 << 10, done}, err
		}}
		got, err := b.ask(b.ctx, tr, strings.NewReader(long))
		if err != nil {
			t.Fatal(err)
		}
		defer got.body.Close()
		time.Sleep(stallAfter / 2)
		if n := b.used("streams"); n != 1 {
			t.Errorf("%d streams run", n)
		}
		b.served()
		time.Sleep(stallAfter/2 + lastWords + 2*time.Second)
		if s, c := b.used("streams"), b.used("connections"); s+c != 0 {
			t.Errorf("%d streams run, %d connections are open", s, c)
		}
	})
}

// TestCopies: an answer has no more copies of a text than are counted, and few bytes besides.
func TestCopies(t *testing.T) {
	const chunks, besides = 1000, exchangeBytes / 2
	text := []byte(strings.Repeat("x", 100))
	frames := wire.AppendChunk(nil, wire.Chunk{Epoch: 1, Sequence: 1, Text: text})
	for of, fields := range bodies {
		for _, streamed := range []bool{false, true} {
			body, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			a := (&Server{}).newAnswer(httptest.NewRecorder(), newExchange(t, of, string(body)), streamed, 0)
			most := 0
			for range chunks {
				a.decoder.read(frames)
				if streamed {
					most = max(most, len(a.events.buf))
					a.events.buf = a.events.buf[:0]
				}
			}
			a.decoder.read(wire.Append(nil, &wirepb.Done{FinishReason: "stop", Tokens: chunks}))
			if streamed {
				most = max(most, len(a.events.buf))
			} else {
				document, _ := a.whole.document()
				most = len(document)
			}
			if own := (a.copies() - 2) * chunks * len(text); most > max(own, 0)+besides {
				t.Errorf("%s, streamed: %v: %d bytes of a text of %d", of, streamed, most, chunks*len(text))
			}
		}
	}
}

// TestBatch: events that a client does not read take no more than is counted, however short their texts are.
func TestBatch(t *testing.T) {
	var frames []byte
	for sequence := uint64(1); len(frames) < batchMost; sequence++ {
		frames = wire.AppendChunk(frames, wire.Chunk{Epoch: 1, Sequence: sequence, Text: []byte("x")})
	}
	for of, fields := range bodies {
		body, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		a := (&Server{}).newAnswer(httptest.NewRecorder(), newExchange(t, of, string(body)), true, 0)
		a.decoder.read(frames)
		if n := cap(a.events.buf); n > exchangeBytes-30<<10 {
			t.Errorf("%s: %d bytes", of, n)
		}
	}
}

// TestReceiveWindows: what a client of HTTP/2 may send ahead is bounded (RFC 9113 §6.5.2, §6.9).
func TestReceiveWindows(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		c := b.dial("client")
		c.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, ""))
		windows := map[string]uint32{"connection": 65535}
		for len(windows) < 2 || windows["connection"] == 65535 {
			head := make([]byte, 9)
			if _, err := io.ReadFull(c.in, head); err != nil {
				t.Fatal(err)
			}
			payload := make([]byte, int(head[1])<<8+int(head[2]))
			if _, err := io.ReadFull(c.in, payload); err != nil {
				t.Fatal(err)
			}
			switch head[3] {
			case 4:
				for ; len(payload) > 0; payload = payload[6:] {
					if payload[1] == 4 {
						windows["stream"] = binary.BigEndian.Uint32(payload[2:])
					}
				}
			case 8:
				windows["connection"] += binary.BigEndian.Uint32(payload)
			}
		}
		for name, n := range windows {
			if n > requestWindow {
				t.Errorf("a %s may send %d bytes ahead", name, n)
			}
		}
	})
}

// TestThousandUnread: a thousand clients that ask for long streams and never read have no more than is allowed, and others are served.
func TestThousandUnread(t *testing.T) {
	const most = 64 << 20
	besiege(t, plenty(shares.Bytes, most), func(b *besieged) {
		b.worker()
		for range 1000 {
			c, err := b.net.Host("evil").DialStream(b.Context(), "director:61000")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, post(long)) // some are refused at once
		}
		for range int(stallAfter / time.Second) {
			time.Sleep(time.Second / 2)
			if used := b.used("bytes"); used > most {
				t.Fatalf("%d bytes of %d are taken", used, most)
			}
		}
		b.served()
		if n := b.used("streams"); n < 100 {
			t.Errorf("%d streams run", n)
		}
		time.Sleep(stallAfter)
		if n := b.used("streams"); n != 0 {
			t.Errorf("%d streams run still", n)
		}
		if n := b.used("bytes"); n > b.used("connections")*connectionBytes {
			t.Errorf("%d bytes are held still", n)
		}
	})
}

// TestTooManyConnections: those beyond are closed at once, and others are served.
func TestTooManyConnections(t *testing.T) {
	const most = 16
	besiege(t, plenty(shares.Connections, most), func(b *besieged) {
		b.worker()
		var open []*bufferedConn
		for range most - most/8 {
			open = append(open, b.dial("evil"))
		}
		time.Sleep(time.Second)
		if d := b.dial("evil").lasts(); d != 0 {
			t.Errorf("one more is closed after %v", d)
		}
		conn := b.quic("evil", 1<<10)
		<-conn.Context().Done()
		var refused *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &refused) || refused.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
			t.Errorf("one more over QUIC: %v", err)
		}
		b.served()
		_ = open[0].Close()
		time.Sleep(time.Second)
		c := b.dial("evil")
		c.say(post(`{"prompt":"x","max_tokens":1}`))
		if got := c.answer(); got.status != http.StatusOK {
			t.Errorf("when there is a place again: %v", got)
		}
	})
}

// TestTooManySockets: what TCP takes of the process's descriptors is divided as well. QUIC has one for all.
func TestTooManySockets(t *testing.T) {
	const most = 16
	besiege(t, plenty(shares.Sockets, most), func(b *besieged) {
		b.worker()
		for range 2 * most {
			b.dial("evil")
		}
		time.Sleep(time.Second)
		if n := b.used("connections"); n != most-most/8 {
			t.Errorf("%d connections are open", n)
		}
		b.served()
		got, err := b.ask(b.Context(), b.client("h3", "evil"), strings.NewReader(`{"prompt":"x","max_tokens":1}`))
		if err != nil || got.status != http.StatusOK {
			t.Errorf("over QUIC: %v, %v", got, err)
			return
		}
		_ = got.body.Close()
	})
}

// TestTooManyStreams: those beyond are refused, and told when to try again.
func TestTooManyStreams(t *testing.T) {
	const most = 8
	besiege(t, plenty(shares.Streams, most), func(b *besieged) {
		for range most - most/8 {
			b.dial("evil").say(post(long))
		}
		time.Sleep(time.Second)
		c := b.dial("evil")
		c.say(post(long))
		got := c.answer()
		body, _ := io.ReadAll(got.body)
		if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" || !bytes.Contains(body, []byte(`"code":"rate_limit_exceeded"`)) {
			t.Errorf("%v: %s", got, body)
		}
		b.worker()
		b.served()
	})
}

// TestNoWorker: whoever waits in vain is told so by a status, or where heartbeats have begun the answer by an error.
func TestNoWorker(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		whole, streamed := b.dial("a"), b.dial("b")
		whole.say(post(`{"prompt":"x"}`))
		streamed.say(post(long, "X-Connswap-Resume: 1\r\n"))
		start := time.Now()
		got := streamed.answer()
		if took := time.Since(start); got.status != http.StatusOK || took < heartbeat || took > heartbeat+time.Second {
			t.Errorf("%d after %v", got.status, took)
		}
		lines, err := io.ReadAll(got.body)
		if text := string(lines); err != nil || strings.Count(text, ping) < int(workerWait/heartbeat)-1 || !strings.Contains(text, `"code":"stream_interrupted"`) ||
			strings.Contains(text, "[DONE]") {
			t.Errorf("%q, %v", text, err)
		}
		noEmptyEvents(t, string(lines))
		got = whole.answer()
		if body, _ := io.ReadAll(got.body); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "true" {
			t.Errorf("%v: %s", got, body)
		}
	})
}

// TestHeartbeats come while a stream waits, and none of them ends an event: not before its first one, nor after an id.
func TestHeartbeats(t *testing.T) {
	besiege(t, plenty(shares.Connections, 100), func(b *besieged) {
		c := b.dial("client")
		c.say(post(`{"prompt":"x","stream":true,"max_tokens":4,"seed":1}`, "X-Connswap-Resume: 1\r\n"))
		time.Sleep(3*heartbeat + time.Second)
		b.worker()
		got := c.answer()
		lines, err := io.ReadAll(got.body)
		if text := string(lines); err != nil || strings.Count(text, ping) < 3 || strings.Count(text, tokenText) != 4 || !strings.Contains(text, "[DONE]") {
			t.Errorf("%q, %v", text, err)
		}
		noEmptyEvents(t, string(lines))
	})
}

// noEmptyEvents fails where a decoder of events would dispatch one without data: some clients' take that for a document, and fail.
func noEmptyEvents(t *testing.T, text string) {
	t.Helper()
	data, fields := false, false
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "" && fields && !data:
			t.Errorf("an event without data in %q", text)
		case line == "":
			data, fields = false, false
		case strings.HasPrefix(line, "data:"):
			data, fields = true, true
		default: // a comment too: a decoder may end an event at any empty line
			fields = true
		}
	}
}

// FuzzRequest has requests of all kinds, as they come over a connection: what is not served is refused as a client's error, in words
// that are JSON.
func FuzzRequest(f *testing.F) {
	for _, raw := range []string{
		"GET /v1/models HTTP/1.1\r\nHost: d\r\n\r\n", "GET /v1/models/a%2fb HTTP/1.0\r\nOrigin: http://x\r\n\r\n",
		"GET /v1/responses/resp_1?stream=true&starting_after=-1 HTTP/1.1\r\nHost: d\r\n\r\n",
		"GET /v1/streams/x HTTP/1.1\r\nHost: d\r\nLast-Event-ID: 9\r\n\r\n", "DELETE /v1/streams/%00 HTTP/1.1\r\nHost: d\r\n\r\n",
		"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nX-Request-Id: \t\x80\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/responses HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"OPTIONS /v1 HTTP/1.1\r\nHost: d\r\nOrigin: x\r\nAccess-Control-Request-Method: POST\r\n\r\n", "BREW /v1//files/../x HTTP/1.1\r\nHost: d\r\n\r\n",
	} {
		f.Add(raw)
	}
	s := New(Config{
		Settings: settings.Fixed(config.Director{MaxBodyBytes: 1000, MaxTokens: 10}), Origins: []string{"*"}, Models: func() []string { return []string{"m"} }, Events: event.NewBus(),
		Model: func(name string) (string, error) { return name, wire.Errorf(wire.CodeModel, "no model %q", name) },
	}, shares.New(plenty(shares.Bytes, 1<<20)), nil, &atomic.Uint64{}, &clock.StallProof{}, zap.NewNop())
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil || r.RequestURI == "*" { // net/http answers that
			t.Skip()
		}
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code == http.StatusInternalServerError || w.Code >= 400 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for kind, share := range s.shares.Status() {
			if share.Used != 0 {
				t.Errorf("%d %s are left", share.Used, kind)
			}
		}
	})
}
