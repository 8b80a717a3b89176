package transfer

import (
	"bytes"
	"context"
	"crypto/tls"
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
	"google.golang.org/protobuf/proto"

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
		Id: bytes.Repeat([]byte{number}, tokenID), Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER,
		Director: "director-1", Session: 7, ConnectionId: "c-1", StreamId: 4, Source: "source", Target: "target",
		FromEpoch: 1, ToEpoch: 2,
	}
}

var (
	moving     = Key{"director-1", 7, false}
	checkpoint = Key{"director-1", 7, true}
)

func signed(t testing.TB, token *wirepb.Token) *wirepb.SignedToken {
	t.Helper()
	b, err := proto.Marshal(token)
	require.NoError(t, err)
	return &wirepb.SignedToken{Token: b, Signature: []byte("good")}
}

func fetch(t testing.TB, token *wirepb.Token) *wirepb.Fetch {
	return &wirepb.Fetch{Session: token.GetSession(), Addr: addr, Token: signed(t, token)}
}

// verifier stands for the real one.
type verifier struct {
	mu      sync.Mutex
	used    map[string]bool
	expired bool // all but those that were used
}

func (v *verifier) verify(signed *wirepb.SignedToken, puller string, again bool) (*wirepb.Token, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var token wirepb.Token
	if err := proto.Unmarshal(signed.GetToken(), &token); err != nil {
		return nil, err
	}
	switch id := string(token.GetId()); {
	case string(signed.GetSignature()) != "good":
		return nil, wire.Errorf(wire.CodeTokenTampered, "not signed")
	case token.GetTarget() != puller:
		return nil, wire.Errorf(wire.CodeTokenTarget, "for %s", token.GetTarget())
	case v.expired && !again:
		return nil, wire.Errorf(wire.CodeTokenExpired, "too late")
	case v.used[id] && !again:
		return nil, wire.Errorf(wire.CodeTokenReplayed, "used")
	default:
		v.used[id] = true
		return &token, nil
	}
}

// pair is a source and a target on a network.
type pair struct {
	*testing.T
	net            *simtest.Net
	source, target *simtest.Host
	sources        map[identity.Role]identity.Source
	server         *Server
	verifier       *verifier
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
		Network: p.target, TLS: clientTLS(sources), Name: "target", MaxState: 64 * mib, Log: zap.NewNop(),
	})
	return p
}

// newServer is what a source has that starts again: nothing.
func (p *pair) newServer() {
	if p.server != nil {
		p.server.Store.Close()
	}
	core, sent := observer.New(zapcore.DebugLevel)
	v := &verifier{used: make(map[string]bool)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent, p.verifier = sent, v
	p.server = &Server{Store: NewStore(256 * mib), Verify: v.verify, Log: zap.New(core)}
}

func clientTLS(sources map[identity.Role]identity.Source) func(identity.Role) *tls.Config {
	return func(peer identity.Role) *tls.Config {
		return identity.ClientTLS(sources[identity.Worker], wire.ALPNMgmt, peer)
	}
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
	face := mgmt.Face{Stream: p.stream}
	_ = face.Serve(ctx, listen(p, p.source, ":63001", p.sources)) // an error where the host was killed
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
	time.Sleep(lineIdle + 10*time.Millisecond)
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
	return p.puller.Pull(ctx, identity.Worker, fetch(p, token(number)))
}

// expire makes all tokens too old to begin with.
func (p *pair) expire() {
	p.verifier.mu.Lock()
	defer p.verifier.mu.Unlock()
	p.verifier.expired = true
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
