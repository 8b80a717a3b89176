package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/placement/placementtest"
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

// maxStreams is what the tests' director allows on one connection.
const maxStreams = 4

// world is a director without workers, in a bubble: its streams wait.
type world struct {
	*testing.T
	net     *simtest.Net
	sources map[identity.Role]identity.Source
	server  *Server
	stop    context.CancelFunc
	stopped chan struct{}
}

func inWorld(t *testing.T, change func(*Config), test func(w *world)) {
	t.Helper()
	inSmallWorld(t, plenty(shares.Streams, 100), change, test)
}

func inSmallWorld(t *testing.T, limits shares.Limits, change func(*Config), test func(w *world)) {
	t.Helper()
	inWorldOf(t, limits, maxStreams, change, test)
}

// inWorldOf has a director that allows so many streams on one connection.
func inWorldOf(t *testing.T, limits shares.Limits, streams int, change func(*Config), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, net: simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}}), sources: sources}
		defer w.net.Close()
		cfg := Config{
			DirectorID: "director-1", Settings: settings.Fixed(config.Director{MaxPromptBytes: 100, MaxTokens: 50}),
		}
		if change != nil {
			change(&cfg)
		}
		clock := &clock.StallProof{}
		host := w.net.Host("director")
		f := fleet.New(link.Config{}, fleet.Deps{Clock: clock, Log: zap.NewNop()})
		defer f.Close()
		workers := placementtest.New(t, 1, f)
		w.server = New(cfg, shares.New(limits), sessions(workers, clock), clock, zap.NewNop())
		l, err := quicnet.Listen(host, ":61000", identity.ServerTLS(sources[identity.Director], []string{wire.ALPNClient}, nil),
			quicnet.ServeClientsConfig(streams))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ticking, end := context.WithCancel(t.Context())
		defer end()
		go clock.Run(ticking, func() {}) //nolint:errcheck // it ends with the bubble
		w.stop, w.stopped = stop, make(chan struct{})
		go func() {
			defer close(w.stopped)
			if err := w.server.Serve(ctx, l); err != nil {
				t.Errorf("Serve: %v", err)
			}
		}()
		test(w)
		stop()
		<-w.stopped
	})
}

func sessions(workers *placement.Placement, clock *clock.StallProof) *session.Manager {
	return session.NewManager(session.Config{
		MaxBytes: 1 << 20, Window: 16, ClientStall: time.Minute, ResumeWait: waits, MaxSwapsPerMinute: 10, MaxWorkerDeaths: 3,
		Tokens:   stream.Timeouts{FirstToken: time.Second, TokenMin: time.Second, Factor: 4},
		Handover: handover.Config{WorkerWait: time.Hour, AttachTimeout: time.Second, FirstTokenTimeout: time.Second},
	}, session.Deps{Placement: workers, Clock: clock, Log: zap.NewNop()}, time.Minute)
}

// dial connects without a word; window is what it gives each stream, or 0 for what clients give.
func (w *world) dial(window uint64) *quicnet.Conn {
	w.Helper()
	return w.dialFrom("client", window)
}

func (w *world) dialFrom(host string, window uint64) *quicnet.Conn {
	w.Helper()
	conf := quicnet.ClientConfig()
	if window > 0 {
		conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = window, window
	}
	tlsConf := identity.ClientTLS(w.sources[identity.Client], wire.ALPNClient, identity.Director)
	conn, err := quicnet.Dial(w.Context(), w.net.Host(host), "director:61000", tlsConf, conf)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close(wire.QUICOk, "") }) //nolint:errcheck // most are closed already
	return conn
}

// say opens a stream, sends bytes and leaves it open. The director may stop it while it does so.
func (w *world) say(conn *quicnet.Conn, b []byte) *quic.Stream {
	w.Helper()
	stream, err := conn.OpenStream()
	if err == nil {
		_, err = stream.Write(b)
	}
	if stopped := new(quic.StreamError); err != nil && !errors.As(err, &stopped) {
		w.Fatal(err)
	}
	return stream
}

var hello = wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Client: "test"})

// greeted connects and greets.
func (w *world) greeted(window uint64) *quicnet.Conn {
	w.Helper()
	return w.greetedFrom("client", window)
}

func (w *world) greetedFrom(host string, window uint64) *quicnet.Conn {
	w.Helper()
	conn := w.dialFrom(host, window)
	if _, err := wire.ReadMessage[*wirepb.Welcome](wire.NewReader(w.say(conn, hello), wire.MaxControl)); err != nil {
		w.Fatal(err)
	}
	return conn
}

// ask sends a request on a stream of its own, and returns the answer to it.
func (w *world) ask(conn *quicnet.Conn, r *wirepb.Request) (*quic.Stream, *wire.Reader) {
	w.Helper()
	stream := w.say(conn, wire.Append(nil, &wirepb.Generate{Request: r}))
	_ = stream.Close() // the director may have said already that it wants no more
	return stream, wire.NewReader(stream, wire.MaxControl)
}

// served fails unless the stream is a session's, which waits for a worker.
func (w *world) served(frames *wire.Reader) {
	w.Helper()
	if _, err := wire.ReadMessage[*wirepb.Waiting](frames); err != nil {
		w.Errorf("not served: %v", err)
	}
}

// refused fails unless the stream ends in an Error with this code and these words.
func (w *world) refused(frames *wire.Reader, code wire.Code, words string) {
	w.Helper()
	_, err := wire.ReadMessage[*wirepb.Waiting](frames)
	if e := new(wire.Error); !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, words) {
		w.Errorf("got %v, want %s: … %s", err, code, words)
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		w.Errorf("after the refusal: %v", err)
	}
}

// closed waits until the director has closed the connection, and returns how.
func (w *world) closed(conn *quicnet.Conn) *quic.ApplicationError {
	w.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(time.Minute):
		w.Fatal("the director keeps the connection")
	}
	e := new(quic.ApplicationError)
	if err := context.Cause(conn.Context()); !errors.As(err, &e) || !e.Remote {
		w.Fatalf("the connection ended with %v", err)
	}
	return e
}

// plenty is more of everything than most tests need; but is how much there is of something.
func plenty(but shares.Kind, n int64) shares.Limits {
	limits := shares.Limits{shares.Connections: 100, shares.Requests: 100, shares.Streams: 100, shares.Bytes: 1 << 30}
	limits[but] = n
	return limits
}

func TestTooManyConnections(t *testing.T) {
	inSmallWorld(t, plenty(shares.Connections, 2), nil, func(w *world) {
		first, _ := w.greeted(0), w.greeted(0)
		if e := w.closed(w.dial(0)); e.ErrorCode != wire.QUICRefused ||
			!strings.Contains(e.ErrorMessage, "no room for more connections: of 2 in all (DIRECTOR_MAX_CONNECTIONS) 2 are taken, 2 of them by ") {
			t.Errorf("got %v", e)
		}
		first.CloseWithError(wire.QUICOk, "") //nolint:errcheck // always nil
		time.Sleep(time.Second)
		w.greeted(0) // there is a place again
	})
}

func TestTooManyStreams(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(0)
		var first *quic.Stream
		for range maxStreams {
			stream, frames := w.ask(conn, &wirepb.Request{})
			w.served(frames)
			if first == nil {
				first = stream
			}
		}
		if _, err := conn.OpenStream(); !errors.Is(err, &quic.StreamLimitReachedError{}) {
			t.Errorf("one stream more: %v", err)
		}
		first.CancelRead(wire.StreamCancel)
		time.Sleep(time.Second)
		_, frames := w.ask(conn, &wirepb.Request{})
		w.served(frames)
	})
}

// TestTooManySessions: streams whose requests are not whole do not count.
func TestTooManySessions(t *testing.T) {
	inSmallWorld(t, plenty(shares.Streams, 3), nil, func(w *world) {
		one, other := w.greeted(0), w.greeted(0)
		stream, frames := w.ask(one, &wirepb.Request{})
		w.served(frames)
		w.say(one, []byte{5})
		w.say(other, []byte{5})
		time.Sleep(time.Second)
		for range 2 {
			_, frames := w.ask(other, &wirepb.Request{})
			w.served(frames)
		}
		const words = "no room for more streams: of 3 in all (DIRECTOR_MAX_SESSIONS) 3 are taken, 3 of them by "
		_, frames = w.ask(other, &wirepb.Request{})
		w.refused(frames, wire.CodeLimit, words)

		stream.CancelRead(wire.StreamCancel)
		time.Sleep(time.Second)
		_, frames = w.ask(one, &wirepb.Request{})
		w.served(frames)
		_, frames = w.ask(one, &wirepb.Request{})
		w.refused(frames, wire.CodeLimit, words)
	})
}

// promptsOf allows prompts of so many bytes.
func promptsOf(bytes int) func(*Config) {
	return func(cfg *Config) {
		cfg.Settings = settings.Fixed(config.Director{MaxPromptBytes: bytes, MaxTokens: 50})
	}
}

func TestRequests(t *testing.T) {
	inWorld(t, promptsOf(100_000), func(w *world) {
		conn := w.greeted(0)
		for _, c := range []struct {
			request *wirepb.Request
			code    wire.Code // none if it is served
			words   string
		}{
			{&wirepb.Request{Prompt: strings.Repeat("x", 100_000), MaxTokens: 50}, "", ""},
			{nil, "", ""},
			{&wirepb.Request{Prompt: strings.Repeat("x", 100_001)}, wire.CodeLimit, "longer than the 100000 bytes"},
			{&wirepb.Request{Prompt: strings.Repeat("x", 200_000)}, wire.CodeLimit, "longer than the 100000 bytes"},
			{&wirepb.Request{MaxTokens: 51}, wire.CodeLimit, "max_tokens is 51, this director allows 50"},
		} {
			_, frames := w.ask(conn, c.request)
			if c.code == "" {
				w.served(frames)
			} else {
				w.refused(frames, c.code, c.words)
			}
		}
	})
}

func TestBrokenRequests(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(0)
		generate := wire.Append(nil, &wirepb.Generate{})
		for name, b := range map[string][]byte{
			"something else": wire.Append(nil, &wirepb.Welcome{}),
			"an error":       wire.Append(nil, wire.Errorf(wire.CodeShutdown, "words of the client").Proto()),
			"much unknown":   wire.Append(nil, withUnknown(&wirepb.Generate{}, 50_000)),
			"much unknown within": wire.Append(nil, &wirepb.Generate{
				Request: withUnknown(&wirepb.Request{Prompt: "x"}, 50_000),
			}),
			"no frame":     {1, 63},
			"nothing":      nil,
			"half a frame": generate[:1],
			"two requests": append(generate[:len(generate):len(generate)], generate...),
		} {
			t.Log(name)
			stream := w.say(conn, b)
			_ = stream.Close() // the director may have said already that it wants no more
			w.refused(wire.NewReader(stream, wire.MaxControl), wire.CodeProtocol, "")
		}
		_, frames := w.ask(conn, &wirepb.Request{})
		w.served(frames)
	})
}

// TestSilentClients are given up, and nobody else suffers.
func TestSilentClients(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		start := time.Now()
		mute, stutterer, undecided := w.dial(0), w.dial(0), w.greeted(0)
		w.say(stutterer, hello[:2])
		w.refused(wire.NewReader(w.say(undecided, []byte{5}), wire.MaxControl), wire.CodeProtocol, "deadline")
		for _, conn := range []*quicnet.Conn{mute, stutterer} {
			if e := w.closed(conn); e.ErrorCode != wire.QUICProtocol || e.ErrorMessage != "protocol_error: no hello within 10s" {
				t.Errorf("got %v", e)
			}
		}
		if took := time.Since(start).Round(time.Second); took != requestTimeout {
			t.Errorf("given up after %v", took)
		}
		_, frames := w.ask(undecided, &wirepb.Request{})
		w.served(frames)
	})
}

// TestShutdownWaitsForNobody stops the director while a client owes it something.
func TestShutdownWaitsForNobody(t *testing.T) {
	for name, play := range map[string]func(w *world) *quicnet.Conn{
		"a greeting": func(w *world) *quicnet.Conn { return w.dial(0) },
		"the rest of a greeting": func(w *world) *quicnet.Conn {
			conn := w.dial(0)
			w.say(conn, hello[:2])
			return conn
		},
		"room for a welcome": func(w *world) *quicnet.Conn {
			conn := w.dial(8)
			w.say(conn, hello)
			return conn
		},
		"the rest of a request": func(w *world) *quicnet.Conn {
			conn := w.greeted(0)
			w.say(conn, []byte{5})
			return conn
		},
		"the end of a request": func(w *world) *quicnet.Conn {
			conn := w.greeted(0)
			w.say(conn, wire.Append(nil, &wirepb.Generate{}))
			return conn
		},
		"room for a refusal": func(w *world) *quicnet.Conn {
			conn := w.greeted(16)
			w.say(conn, wire.Append(nil, &wirepb.Welcome{}))
			return conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				conn := play(w)
				time.Sleep(100 * time.Millisecond)
				start := time.Now()
				w.stop()
				<-w.stopped
				if took := time.Since(start); took > 10*time.Millisecond {
					t.Errorf("the shutdown took %v", took)
				}
				if e := w.closed(conn); e.ErrorCode != wire.QUICShutdown || !strings.HasPrefix(e.ErrorMessage, string(wire.CodeShutdown)) {
					t.Errorf("got %v", e)
				}
			})
		})
	}
}

// TestNoRoomForARefusal gives the director no window to say why: it does not wait for one.
func TestNoRoomForARefusal(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(16)
		_, err := wire.NewReader(w.say(conn, wire.Append(nil, &wirepb.Welcome{})), wire.MaxControl).Next()
		if e := new(quic.StreamError); !errors.As(err, &e) || e.ErrorCode != wire.StreamRefused {
			t.Errorf("got %v", err)
		}
	})
}

func TestOtherVersions(t *testing.T) {
	for _, version := range []uint32{0, wire.Version + 1} {
		inWorld(t, nil, func(w *world) {
			conn := w.dial(0)
			start := time.Now()
			frames := wire.NewReader(w.say(conn, wire.Append(nil, &wirepb.ClientHello{Version: version})), wire.MaxControl)
			words := fmt.Sprintf("client speaks version %d, this director %d", version, wire.Version)
			time.Sleep(100 * time.Millisecond) // a slow client finds it too
			w.refused(frames, wire.CodeVersion, words)
			e := w.closed(conn)
			if e.ErrorCode != wire.QUICRefused || e.ErrorMessage != "version: "+words {
				t.Errorf("got %v", e)
			}
			if took := time.Since(start).Round(100 * time.Millisecond); took != refusalTimeout {
				t.Errorf("closed after %v", took)
			}
		})
	}
}
