package worker_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// What the tests of standbys, states and drains have in common.

// planned is the configuration of a worker with an engine whose states, if it has any, are two chunks.
func planned(engine string) config.Worker {
	cfg := settings()
	cfg.Engine, cfg.StateBytes = engine, 300<<10
	return cfg
}

// undisturbed is what the configured engine makes for the request of attach, n tokens of it.
func undisturbed(t *testing.T, cfg config.Worker, n int) [][]byte {
	t.Helper()
	e, err := worker.EngineOf(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tokens, _ := generated(t, e, n)
	return tokens
}

// generated is the same with a generation that stands after them.
func generated(t *testing.T, e engine.Engine, n int) ([][]byte, engine.Generation) {
	t.Helper()
	g, err := e.Open(t.Context(), engine.Request{Prompt: "river", Seed: 7}, nil, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	var tokens [][]byte
	for range n {
		text, err := g.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, bytes.Clone(text.Text))
	}
	return tokens, g
}

// captured is a snapshot of the configured engine's state after n tokens, which says that it is after said.
func captured(t *testing.T, cfg config.Worker, n int, said uint64) *transfer.Snapshot {
	t.Helper()
	e := must(worker.EngineOf(cfg))
	_, g := generated(t, e, n)
	capturer, ok := g.(engine.Capturer)
	if !ok {
		t.Fatalf("engine %s has no state", e.Name())
	}
	return must(transfer.Compress(said, must(capturer.Capture(nil))))
}

// hear returns the next E that comes, and adds to tokens what comes before.
func hear[E any](t *testing.T, l *fakedirector.Link, tokens *[][]byte) E {
	t.Helper()
	for {
		event := fakedirector.Next[any](t, l)
		if e, ok := event.(E); ok {
			return e
		}
		switch event := event.(type) {
		case *wirepb.Begin:
		case wire.Chunk:
			if want := uint64(len(*tokens)) + 1; event.Sequence != want {
				t.Fatalf("got token %d, want %d", event.Sequence, want)
			}
			*tokens = append(*tokens, event.Text)
		default:
			var want E
			t.Fatalf("got %T (%v), want %T", event, event, want)
		}
	}
}

// hearTokens adds what comes to tokens until there are n.
func hearTokens(t *testing.T, l *fakedirector.Link, tokens *[][]byte, n int) {
	t.Helper()
	for len(*tokens) < n {
		*tokens = append(*tokens, hear[wire.Chunk](t, l, tokens).Text)
	}
}

// sameText fails unless got are the tokens wanted, cut at the same places.
func sameText(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d tokens, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("token %d is %q, want %q", i+1, got[i], want[i])
		}
	}
}

// prepared waits until the standby is after a token.
func prepared(t *testing.T, l *fakedirector.Link, id, epoch, sequence uint64) {
	t.Helper()
	m := fakedirector.Next[*wirepb.Prepared](t, l)
	if m.GetSession() != id || m.GetEpoch() != epoch || m.GetSequence() != sequence {
		t.Fatalf("got %v, want session %d, epoch %d, sequence %d", m, id, epoch, sequence)
	}
}

// refused waits for the refusal of an Attach.
func refused(t *testing.T, l *fakedirector.Link, id, epoch uint64, code wire.Code) {
	t.Helper()
	m := fakedirector.Next[*wirepb.Refused](t, l)
	if m.GetSession() != id || m.GetEpoch() != epoch || m.GetCode() != string(code) {
		t.Errorf("got %v, want session %d, epoch %d, %s", m, id, epoch, code)
	}
}

// failed waits until an attempt fails.
func failed(t *testing.T, l *fakedirector.Link, id, epoch uint64, code wire.Code) {
	t.Helper()
	m := fakedirector.Next[*wirepb.Fail](t, l)
	if m.GetSession() != id || m.GetEpoch() != epoch || m.GetCode() != string(code) {
		t.Errorf("got %v, want session %d, epoch %d, %s", m, id, epoch, code)
	}
}

// silent fails if something comes within d.
func silent(t *testing.T, l *fakedirector.Link, d time.Duration) {
	t.Helper()
	if remaining := l.Remaining(d); len(remaining) > 0 {
		t.Fatalf("got %T (%v)", remaining[0], remaining)
	}
}

// soon waits until c is closed.
func soon(t *testing.T, c <-chan struct{}) {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case <-c:
	case <-timeout.C:
		t.Fatal("it does not happen")
	}
}

// idle fails if the worker at a MGMT address has a session.
func (b *bench) idle(t *testing.T, addr string) {
	t.Helper()
	if status := b.statusOf(t, addr); len(status.Sessions) > 0 {
		t.Errorf("%s still has %+v", addr, status.Sessions)
	}
}

// pull gets a state as worker-b does.
func (b *bench) pull(t *testing.T, fetch *wirepb.Fetch) (*transfer.Snapshot, error) {
	t.Helper()
	return b.pullAs(t, identity.Worker, "worker-b", fetch)
}

// pullAs gets a state as a node with another certificate or name does. It gives up after a few seconds.
func (b *bench) pullAs(t *testing.T, role identity.Role, name string, fetch *wirepb.Fetch) (*transfer.Snapshot, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	puller := b.Puller(role, name, b.Net.Host("worker-b"))
	defer puller.Close()
	return puller.Pull(ctx, identity.Worker, fetch)
}

// spy is an engine with a state that counts how its generations begin, and how many have not ended.
type spy struct {
	engine.Stateful

	opened, restored, open atomic.Int32
}

func newSpy(t *testing.T, cfg config.Worker) *spy {
	t.Helper()
	e, ok := must(worker.EngineOf(cfg)).(engine.Stateful)
	if !ok {
		t.Fatalf("engine %s has no state", cfg.Engine)
	}
	return &spy{Stateful: e}
}

func (s *spy) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	s.opened.Add(1)
	return s.watch(s.Stateful.Open(ctx, req, prefix, progress))
}

func (s *spy) Restore(ctx context.Context, req engine.Request, state []byte) (engine.Generation, error) {
	s.restored.Add(1)
	return s.watch(s.Stateful.Restore(ctx, req, state))
}

func (s *spy) watch(g engine.Generation, err error) (engine.Generation, error) {
	if err != nil {
		return nil, err
	}
	s.open.Add(1)
	return &watched{g.(engine.Capturer), s}, nil
}

// began fails unless generations began so often with a prefix, and with a state.
func (s *spy) began(t *testing.T, opened, restored int32) {
	t.Helper()
	if o, r := s.opened.Load(), s.restored.Load(); o != opened || r != restored {
		t.Errorf("opened %d times, restored %d times; want %d and %d", o, r, opened, restored)
	}
}

type watched struct {
	engine.Capturer

	spy *spy
}

func (w *watched) Close() error {
	w.spy.open.Add(-1)
	return w.Capturer.Close()
}
