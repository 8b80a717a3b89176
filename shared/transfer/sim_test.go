package transfer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	kib  = 1 << 10
	mib  = 1 << 20
	addr = "source:63001"
)

// noise is a state that cannot be compressed.
func noise(size int) []byte {
	state := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(state) // never fails
	return state
}

func compress(t testing.TB, sequence uint64, state []byte) *Snapshot {
	t.Helper()
	snapshot, err := Compress(sequence, state)
	require.NoError(t, err)
	return snapshot
}

func requireState(t testing.TB, want []byte, snapshot *Snapshot) {
	t.Helper()
	got, err := snapshot.State()
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the state is another one")
}

func requireCode(t testing.TB, want wire.Code, err error) {
	t.Helper()
	var refusal *wire.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, want, refusal.Code, err)
}

// token allows the target to pull session 7 of the director; number tells it from others.
func token(number byte) *wirepb.Token {
	return &wirepb.Token{
		Secret: bytes.Repeat([]byte{number}, secretSize), Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER,
		Director: "director-1", Session: 7, ConnectionId: "c-1", StreamId: 4, Source: "source", Target: "target",
		FromEpoch: 1, ToEpoch: 2,
	}
}

var (
	moving     = Key{"director-1", 7, false}
	checkpoint = Key{"director-1", 7, true}
)

func fetch(token *wirepb.Token) *wirepb.Fetch {
	return &wirepb.Fetch{Session: token.GetSession(), Addr: addr, Token: token}
}

// holder stands for the real one: it knows what token returns, and what it is allowed beside that.
type holder struct {
	mu      sync.Mutex
	allowed map[string]*wirepb.Token
	used    map[string]bool
	expired bool // all but those that were used
}

func newHolder() *holder {
	h := &holder{allowed: make(map[string]*wirepb.Token), used: make(map[string]bool)}
	for number := range byte(200) {
		h.allow(token(number))
	}
	return h
}

func (h *holder) allow(token *wirepb.Token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.allowed[string(token.GetSecret())] = token
}

func (h *holder) show(secret []byte, puller string) (*wirepb.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch known := h.allowed[string(secret)]; {
	case len(secret) == 0:
		return nil, wire.Errorf(wire.CodeTokenMissing, "none")
	case known == nil:
		return nil, wire.Errorf(wire.CodeTokenUnknown, "never heard")
	case known.GetTarget() != puller:
		return nil, wire.Errorf(wire.CodeTokenTarget, "for %s", known.GetTarget())
	case h.expired:
		return nil, wire.Errorf(wire.CodeTokenExpired, "too late")
	case h.used[string(secret)]:
		return nil, wire.Errorf(wire.CodeTokenReplayed, "used")
	default:
		h.used[string(secret)] = true
		return known, nil
	}
}

// pair is a source and a target on a network.
type pair struct {
	*testing.T
	net            *simtest.Net
	source, target *simtest.Host
	sources        map[identity.Role]identity.Source
	server         *Server
	holder         *holder
	puller         *Puller
	sent           *observer.ObservedLogs // one entry for each stream that the server ended
	restart        func()                 // the source, with the same server
	// handle answers instead of the server, if it is set.
	handle func(s mgmt.Stream, ask *wirepb.Pull) error

	mu    sync.Mutex
	asks  []*wirepb.Pull
	conns []*quic.Conn
}

// simulate runs test in a bubble; that nothing is left running is the bubble's test.
func simulate(t *testing.T, path simtest.Path, test func(p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: path})
		defer n.Close()
		p := newPair(t, n)
		defer func() { p.server.Store.Close() }()
		defer p.puller.Close()
		var serving sync.WaitGroup
		defer serving.Wait()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		p.restart = func() { serving.Go(func() { p.serve(ctx) }) }
		p.restart()
		test(p)
	})
}

func newPair(t *testing.T, n *simtest.Net) *pair {
	sources, err := identity.NewDevelopment(time.Now())
	require.NoError(t, err)
	p := &pair{T: t, net: n, source: n.Host("source"), target: n.Host("target"), sources: sources}
	p.newServer()
	p.puller = NewPuller(PullerConfig{
		Network: p.target, TLS: sources[identity.Worker], Name: "target", MaxState: 64 * mib, Log: zap.NewNop(),
	})
	return p
}

// newServer is what a source has that starts again: nothing.
func (p *pair) newServer() {
	if p.server != nil {
		p.server.Store.Close()
	}
	core, sent := observer.New(zapcore.DebugLevel)
	h := newHolder()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent, p.holder = sent, h
	p.server = &Server{Store: NewStore(256 * mib), Show: h.show, Log: zap.New(core)}
}

func listen(t testing.TB, nw quicnet.Network, addr string, sources map[identity.Role]identity.Source) *quicnet.Listener {
	t.Helper()
	accept := map[string][]identity.Role{wire.ALPNMgmt: {identity.Worker, identity.Director}}
	tlsConf := identity.ServerTLS(sources[identity.Worker], []string{wire.ALPNMgmt}, accept)
	l, err := quicnet.Listen(nw, addr, tlsConf, quicnet.MgmtConfig(8*time.Second))
	require.NoError(t, err)
	return l
}

func (p *pair) serve(ctx context.Context) {
	srv := mgmt.Server{Stream: p.stream}
	_ = srv.Serve(ctx, listen(p, p.source, ":63001", p.sources)) // an error where the host was killed
}

func (p *pair) stream(ctx context.Context, s mgmt.Stream, first wire.Message) error {
	ask, ok := first.(*wirepb.Pull)
	if !ok {
		return errors.New("no Pull")
	}
	p.mu.Lock()
	p.asks = append(p.asks, ask)
	p.conns = append(p.conns, s.Conn)
	handle, server := p.handle, p.server
	p.mu.Unlock()
	if handle != nil {
		return handle(s, ask)
	}
	return server.Serve(ctx, s, ask)
}

// asked returns the first chunk of each Pull so far.
func (p *pair) asked() []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first []uint32
	for _, ask := range p.asks {
		first = append(first, ask.GetFirstChunk())
	}
	return first
}

// requireClosed waits until the puller has closed its connections, and the source has heard of it.
func (p *pair) requireClosed() {
	p.Helper()
	time.Sleep(connIdleTimeout + 10*time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		require.Error(p, conn.Context().Err(), "a connection is open")
	}
}

// chunksSent counts the chunks of all streams that the server has ended.
func (p *pair) chunksSent() (n int) {
	for _, e := range p.sent.All() {
		fields := e.ContextMap()
		n += int(fields["next"].(uint32) - fields["first"].(uint32))
	}
	return n
}

func (p *pair) put(key Key, snapshot *Snapshot, keep time.Duration) {
	p.Helper()
	require.NoError(p, p.server.Store.Put(key, snapshot, keep))
}

// pull fetches with a token, for up to a minute.
func (p *pair) pull(number byte) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	return p.puller.Pull(ctx, identity.Worker, fetch(token(number)))
}

// expire makes all tokens too old to begin with.
func (p *pair) expire() {
	p.holder.mu.Lock()
	defer p.holder.mu.Unlock()
	p.holder.expired = true
}

// pulling is pull beside the test; the function it returns waits for the end.
func (p *pair) pulling(number byte) func() (*Snapshot, error) {
	var snapshot *Snapshot
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		snapshot, err = p.pull(number)
	}()
	return func() (*Snapshot, error) { <-done; return snapshot, err }
}
