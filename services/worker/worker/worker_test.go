package worker_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	userAddr = "worker-a:62001"
	mgmtAddr = "worker-a:63001"

	otherUserAddr = "worker-b:62001"
	otherMgmtAddr = "worker-b:63001"
)

// bench is a worker, maybe more of them, and a director's host with its MGMT port.
type bench struct {
	*fakedirector.World
	*node // worker-a

	from  *simtest.Host // the director's
	mgmt  *fakedirector.Mgmt
	nodes []*node // all
}

// node is a worker that runs.
type node struct {
	host   *simtest.Host
	worker *worker.Worker
	stop   context.CancelFunc
	done   chan error // Run's result
}

func settings() config.Worker {
	cfg := config.DefaultWorker()
	cfg.Label = "worker-a"
	cfg.Directors = []string{"director:61001"}
	cfg.TokenInterval, cfg.PlainStatus = 0, true
	return cfg
}

// run starts a worker in a bubble and calls test. Afterwards everything has to end.
func run(t *testing.T, cfg config.Worker, deps worker.Deps, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{World: fakedirector.NewWorld(t)}
		host := b.Net.Host(cfg.Label)
		b.from = b.Net.Host("director")
		b.mgmt = b.Listen(t, b.from)
		b.node = b.start(t, host, cfg, deps)

		test(t, b)

		for _, n := range b.nodes {
			n.stop()
			if err := <-n.done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		b.mgmt.Close()
	})
}

// start starts a worker on a host.
func (b *bench) start(t *testing.T, host *simtest.Host, cfg config.Worker, deps worker.Deps) *node {
	t.Helper()
	if deps.Network == nil {
		deps.Network = host
	}
	deps.TLS = b.TLS[identity.Worker]
	if deps.Log == nil && testing.Verbose() {
		deps.Log = zaptest.NewLogger(t)
	}
	w, err := worker.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	n := &node{host: host, worker: w, stop: stop, done: make(chan error, 1)}
	b.nodes = append(b.nodes, n)
	go func() { n.done <- w.Run(ctx) }()
	synctest.Wait() // it listens
	return n
}

// second starts worker-b.
func (b *bench) second(t *testing.T, cfg config.Worker, deps worker.Deps) *node {
	t.Helper()
	cfg.Label = "worker-b"
	return b.start(t, b.Net.Host(cfg.Label), cfg, deps)
}

func attach(session, epoch uint64, maxTokens uint32) *wirepb.Attach {
	return &wirepb.Attach{
		Session: session, Epoch: epoch, ConnectionId: "conn-1", StreamId: session,
		Request: &wirepb.Request{Prompt: "river", MaxTokens: maxTokens, Seed: 7},
		Prefix:  &wirepb.Prefix{}, Credit: 1 << 40,
	}
}

// of makes an Attach one for a stream of another connection.
func of(connection string, m *wirepb.Attach) *wirepb.Attach {
	m.ConnectionId = connection
	return m
}

func prefixOf(tokens [][]byte) *wirepb.Prefix {
	p := &wirepb.Prefix{}
	var digest session.Rolling
	for _, token := range tokens {
		p.Text = append(p.Text, token...)
		p.Lengths = append(p.Lengths, uint32(len(token)))
		digest.Add(wire.Chunk{Text: token})
	}
	d := digest.Digest()
	p.Digest = d[:]
	return p
}

// stream reads one attempt, from Begin to End, and checks what has to hold for every one.
func stream(t *testing.T, l *fakedirector.Link, id, epoch uint64, prefix [][]byte) (tokens [][]byte, end *wirepb.End) {
	t.Helper()
	begin := fakedirector.Next[*wirepb.Begin](t, l)
	next := uint64(len(prefix)) + 1
	if begin.GetSession() != id || begin.GetEpoch() != epoch || begin.GetNextSequence() != next {
		t.Fatalf("got %v, want session %d, epoch %d, sequence %d", begin, id, epoch, next)
	}
	var digest session.Rolling
	for _, token := range prefix {
		digest.Add(wire.Chunk{Text: token})
	}
	if !digest.Digest().Equal(begin.GetDigest()) {
		t.Fatalf("Begin has another digest: %x", begin.GetDigest())
	}
	for ; ; next++ {
		switch event := fakedirector.Next[any](t, l).(type) {
		case wire.Chunk:
			if event.Session != id || event.Epoch != epoch || event.Sequence != next {
				t.Fatalf("got %v, want session %d, epoch %d, sequence %d", event, id, epoch, next)
			}
			tokens = append(tokens, event.Text)
			digest.Add(event)
		case *wirepb.End:
			if event.GetSession() != id || event.GetEpoch() != epoch || event.GetTokens() != next-1 || !digest.Digest().Equal(event.GetDigest()) {
				t.Fatalf("got %v after %d tokens with digest %s", event, next-1, digest.Digest())
			}
			return tokens, event
		default:
			t.Fatalf("got %T (%v)", event, event)
		}
	}
}

func TestServesASession(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, welcome := b.Open(t, b.from, userAddr)
		if welcome.GetWorker() != "worker-a" || !welcome.GetAvailable() || welcome.GetInstance() == "" {
			t.Errorf("got %v", welcome)
		}
		l.Send(t, attach(1, 1, 50))
		whole, end := stream(t, l, 1, 1, nil)
		if len(whole) != 50 || end.GetFinishReason() != "length" {
			t.Errorf("%d tokens, %v", len(whole), end)
		}

		next := attach(1, 2, 50)
		next.Prefix = prefixOf(whole[:20])
		l.Send(t, next)
		remaining, _ := stream(t, l, 1, 2, whole[:20])
		if !bytes.Equal(bytes.Join(remaining, nil), bytes.Join(whole[20:], nil)) {
			t.Error("the continuation differs")
		}

		full := attach(2, 1, 50)
		full.Prefix = prefixOf(whole)
		l.Send(t, full)
		if remaining, end := stream(t, l, 2, 1, whole); len(remaining) > 0 || end.GetFinishReason() != "length" {
			t.Errorf("%d tokens more than asked for, %v", len(remaining), end)
		}
		l.Close()
	})
}

func TestRegisters(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		got := <-b.mgmt.Registrations
		if got.GetWorker() != "worker-a" || got.GetUserAddr() != ":62001" || got.GetMgmtAddr() != ":63001" ||
			got.GetModels()[0].GetName() != "markov" || got.GetModels()[0].GetFingerprint() == "" || got.GetCapacity() != 1024 {
			t.Errorf("got %v", got)
		}
		start := time.Now()
		for count := uint64(1); count <= 4; count++ {
			if beat := <-b.mgmt.Heartbeats; beat.GetCount() != count {
				t.Errorf("got %v", beat)
			}
		}
		if took := time.Since(start).Round(time.Second); took != 15*time.Second {
			t.Errorf("four heartbeats in %v", took)
		}
	})
}
