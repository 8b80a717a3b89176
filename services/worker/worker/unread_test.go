package worker_test

import (
	"bytes"
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// large makes tokens of 4,000 bytes, of all streams together far more than a link may hold.
type large struct{ made *atomic.Int64 }

const largeTokens = 10_000

func (large) Name() string        { return "large" }
func (large) Fingerprint() string { return "large/1" }
func (large) Close() error        { return nil }

func (l large) Open(context.Context, engine.Request, []engine.Chunk, engine.Progress) (engine.Generation, error) {
	return l, nil
}

func (l large) Next(context.Context) (engine.Chunk, error) {
	if l.made.Add(1) > largeTokens {
		return engine.Chunk{}, engine.Finish{Reason: engine.Stop}
	}
	return engine.Chunk{Text: bytes.Repeat([]byte("x"), 4000)}, nil
}

// rawLink is a director's end of a link of which the test reads what it likes.
type rawLink struct {
	conn    *quicnet.Conn
	control *quic.Stream
}

func (b *bench) rawLink(t *testing.T, streams uint32) *rawLink {
	t.Helper()
	conn, err := b.DialAs(t, identity.Director, b.from, userAddr)
	if err != nil {
		t.Fatal(err)
	}
	control, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := fakedirector.Hello()
	hello.TokenStreams = streams
	l := &rawLink{conn: conn, control: control}
	l.send(t, hello)
	return l
}

func (l *rawLink) send(t *testing.T, m wire.Message) {
	t.Helper()
	if _, err := l.control.Write(wire.Append(nil, m)); err != nil {
		t.Fatal(err)
	}
}

// A director that grants credit without end and reads no token stream does not make the worker grow, and is left.
func TestDirectorThatReadsNothing(t *testing.T) {
	const streams, sessions = 2, 20
	// What QUIC takes, 4 MiB for each stream, and what waits for it.
	const most = streams * (4<<20 + 1<<20 + 2<<20)
	run(t, settings(), worker.Deps{Engine: large{&atomic.Int64{}}}, func(t *testing.T, b *bench) {
		l := b.rawLink(t, streams)
		for id := range uint64(sessions) {
			m := attach(id, 1, 0)
			m.ConnectionId = "conn-" + strconv.Itoa(int(id))
			l.send(t, m)
		}
		time.Sleep(10 * time.Second) // it is left 15 s after the last byte that it took, or 15 s later if that was in a part of a write
		before := b.status(t)
		if made := before.Tokens * 4000; made > most {
			t.Errorf("%d bytes were made for a director that reads nothing", made)
		}
		if len(before.Sessions) != sessions {
			t.Errorf("%d sessions", len(before.Sessions))
		}
		time.Sleep(4 * time.Second)
		if after := b.status(t); after.Tokens != before.Tokens {
			t.Errorf("%d tokens more", after.Tokens-before.Tokens)
		}
		time.Sleep(20 * time.Second)
		if after := b.status(t); len(after.Sessions) != 0 {
			t.Errorf("%d sessions are kept for a director that has taken nothing for half a minute", len(after.Sessions))
		}
		l.conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
	})
}

// The same on the control stream: what it must read cannot wait, so the link ends, long before it costs much.
func TestDirectorThatReadsNoControlStream(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.rawLink(t, 1)
		bad := attach(1, 1, 0)
		bad.Prefix = &wirepb.Prefix{Text: []byte("x")} // refused: the lengths are missing
		var batch []byte
		for range 1000 {
			batch = wire.Append(batch, bad)
		}
		for n := 0; ; n += 1000 {
			if n > 1_000_000 {
				t.Fatal("a million refusals, and the link is still there")
			}
			if _, err := l.control.Write(batch); err != nil {
				break
			}
		}
		if s := b.status(t); len(s.Sessions) != 0 {
			t.Errorf("%d sessions are left", len(s.Sessions))
		}
		l.conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
	})
}

// All sessions of one client's connection come by one token stream, and the connections are spread over the streams.
func TestConnectionStaysOnOneTokenStream(t *testing.T) {
	const streams, connections, each = 4, 8, 5
	cfg := settings()
	cfg.TokenInterval = 10 * time.Millisecond // all are there before the first one ends
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.rawLink(t, streams)
		connectionOf := func(session uint64) uint64 { return session % connections }
		for id := range uint64(connections * each) {
			m := attach(id, 1, 20)
			m.ConnectionId = "conn-" + strconv.FormatUint(connectionOf(id), 10)
			l.send(t, m)
		}
		var mu sync.Mutex
		by := make(map[uint64]map[int]bool) // streams of each connection
		var reading sync.WaitGroup
		ended := make(chan struct{}, connections*each)
		for number := range streams {
			reading.Go(func() {
				stream, err := l.conn.AcceptUniStream(t.Context())
				if err != nil {
					return
				}
				for frames := wire.NewReader(stream, wire.MaxControl); ; {
					f, err := frames.Next()
					if err != nil {
						return
					}
					if f.Type == wire.TypeEnd {
						ended <- struct{}{}
					}
					if !f.IsChunk() {
						continue
					}
					token, err := wire.ParseLinkChunk(f)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					connection := connectionOf(token.Session)
					if by[connection] == nil {
						by[connection] = make(map[int]bool)
					}
					by[connection][number] = true
					mu.Unlock()
				}
			})
		}
		for range connections * each {
			<-ended
		}
		l.conn.Close(wire.QUICOk, "") //nolint:errcheck // all is read
		reading.Wait()
		used := make(map[int]int)
		for connection, on := range by {
			if len(on) != 1 {
				t.Errorf("connection %d comes by %d streams", connection, len(on))
			}
			for number := range on {
				used[number]++
			}
		}
		for number := range streams {
			if used[number] != connections/streams {
				t.Errorf("%d connections by stream %d, want %d", used[number], number, connections/streams)
			}
		}
	})
}
