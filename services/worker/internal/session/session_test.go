package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// memory is an outlet that keeps what it is given. While it is full it has no room.
type memory struct {
	mu     sync.Mutex
	chunks []string // sequence and text
	notes  []session.Note
	full   bool
}

func (m *memory) Room(ctx context.Context) error {
	m.mu.Lock()
	full := m.full
	m.mu.Unlock()
	if !full {
		return nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (m *memory) PutChunk(c wire.Chunk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks = append(m.chunks, fmt.Sprintf("%d %s", c.Sequence, c.Text))
}

func (m *memory) Flush() {}

func (m *memory) Tell(n session.Note) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, n)
}

// last returns the last note.
func (m *memory) last() session.Note {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.notes) == 0 {
		return nil
	}
	return m.notes[len(m.notes)-1]
}

func counter(t *testing.T) engine.Engine {
	t.Helper()
	counter, err := engines.New("counter", engines.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return counter
}

func tableOf(e engine.Engine, capacity int) *session.Table {
	return session.NewTable(session.Config{
		Capacity: capacity, MaxBytes: 1 << 20, Models: []session.Model{{Engine: e}}, Log: zap.NewNop(),
	})
}

// eachWay runs a test in bubbles: with sessions that wait for their engine each, and with those that its steps serve.
func eachWay(t *testing.T, test func(t *testing.T, way func(engine.Engine) engine.Engine)) {
	ways := map[string]func(engine.Engine) engine.Engine{
		"waiting":  func(e engine.Engine) engine.Engine { return e },
		"in steps": func(e engine.Engine) engine.Engine { return newStepping(e) },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, way) }) })
	}
}

// start starts a session in a bubble, with credit for so many chunks.
func start(t *testing.T, table *session.Table, stream, epoch, credit uint64, tokens uint32, out session.Outlet) (*session.Session, *wire.Error) {
	t.Helper()
	s, run, refusal := table.Start(t.Context(), session.Start{
		Attach: &wirepb.Attach{
			Session: 77, Epoch: epoch, ConnectionId: "conn-1", StreamId: stream, Credit: credit,
			Request: &wirepb.Request{MaxTokens: tokens}, Prefix: &wirepb.Prefix{},
		},
		Log: zap.NewNop(),
	}, out)
	if refusal == nil {
		go run()
		synctest.Wait()
	}
	return s, refusal
}

// TestTakenUp: a session that loses its outlet goes on as far as it has credit, and another outlet takes it up after any
// chunk that was not acknowledged: what both got is the whole text.
func TestTakenUp(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		whole := &memory{}
		if _, refusal := start(t, tableOf(way(counter(t)), 1), 1, 1, 100, 50, whole); refusal != nil {
			t.Fatal(refusal)
		}
		for after := uint64(4); after <= 20; after++ {
			first, second := &memory{}, &memory{}
			s, refusal := start(t, tableOf(way(counter(t)), 1), 1, 1, 10, 50, first)
			if refusal != nil {
				t.Fatal(refusal)
			}
			s.Leave(first)
			s.Credit(20, 4)
			synctest.Wait()
			if len(first.chunks) != 10 || s.Status().Sequence != 20 || s.Status().Acknowledged != 4 {
				t.Fatalf("%d chunks came, %+v", len(first.chunks), s.Status())
			}
			if err := s.Serve(second, after); err != nil {
				t.Fatal(err)
			}
			s.Credit(100, 0)
			synctest.Wait()
			if got := slices.Concat(whole.chunks[:after], second.chunks); !slices.Equal(got, whole.chunks) {
				t.Errorf("taken up after %d: %v", after, second.chunks)
			}
			if end, ok := second.last().(session.Ended); !ok || end.Chunks != 50 || end.Digest != whole.last().(session.Ended).Digest {
				t.Errorf("taken up after %d: ended with %+v", after, second.last())
			}
		}
	})
}

// TestNotTakenUp: what was acknowledged, and what is not there yet, is refused, each with its own error, and disturbs nobody.
func TestNotTakenUp(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		out := &memory{}
		s, refusal := start(t, tableOf(way(counter(t)), 1), 1, 1, 10, 50, out)
		if refusal != nil {
			t.Fatal(refusal)
		}
		s.Credit(0, 6)
		for after, want := range map[uint64]wire.Code{5: wire.CodeResumeBehind, 11: wire.CodeResumeAhead} {
			refused := &wire.Error{}
			if err := s.Serve(&memory{}, after); !errors.As(err, &refused) || refused.Code != want {
				t.Errorf("after %d: %v", after, err)
			}
		}
		s.Credit(50, 60) // more than there is: nothing is forgotten that was not made
		synctest.Wait()
		if _, ok := out.last().(session.Ended); !ok || len(out.chunks) != 50 {
			t.Errorf("%d chunks, %+v", len(out.chunks), out.last())
		}
		if err := s.Serve(&memory{}, 50); err == nil {
			t.Error("a session that has ended is taken up")
		}
	})
}

// TestNobodyKeepsItWaiting: an outlet without room that is taken away holds up nothing, and an end waits for somebody to
// take it.
func TestNobodyKeepsItWaiting(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		table, stuck, next := tableOf(way(counter(t)), 1), &memory{full: true}, &memory{}
		s, refusal := start(t, table, 1, 1, 100, 50, stuck)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if len(stuck.chunks) > 0 {
			t.Errorf("it gets %v without room", stuck.chunks)
		}
		s.Leave(stuck)
		synctest.Wait()
		if s.Status().Sequence != 50 || table.Load().Sessions != 1 {
			t.Fatalf("%+v, %+v", s.Status(), table.Load())
		}
		if err := s.Serve(next, 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := next.last().(session.Ended); !ok || len(next.chunks) != 50 || table.Load().Sessions != 0 {
			t.Errorf("%d chunks, %+v, %+v", len(next.chunks), next.last(), table.Load())
		}
	})
}

// TestNothingIsLostMeanwhile: without an outlet a session makes no more than it can keep, however much credit it has, and goes on from
// there when it is taken up.
func TestNothingIsLostMeanwhile(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		table := tableOf(way(verbose{}), 1)
		first, second := &memory{full: true}, &memory{}
		s, refusal := start(t, table, 1, 1, 1000, 100, first)
		if refusal != nil {
			t.Fatal(refusal)
		}
		s.Leave(first)
		synctest.Wait()
		if made := s.Status().Sequence; made < 5 || made >= 100 {
			t.Errorf("%d chunks of %d bytes without an outlet", made, engine.MaxText)
		}
		if err := s.Serve(second, 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := second.last().(session.Ended); !ok || len(second.chunks) != 100 {
			t.Errorf("%d chunks, %+v", len(second.chunks), second.last())
		}
	})
}

// verbose is an engine whose chunks are as large as they may be.
type verbose struct{ defective }

func (verbose) Open(_ context.Context, req engine.Request, _ []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	return &talk{limit: engine.NewLimit(req, 0, 0)}, nil
}

type talk struct{ limit engine.Limit }

func (g *talk) Next(context.Context) (engine.Chunk, error) {
	return engine.Chunk{Text: make([]byte, engine.MaxText)}, g.limit.Take(1)
}
func (g *talk) Close() error { return nil }

// TestFencing: a higher epoch of a stream ends the lower one, wherever that came from, before it has its place; the same or a lower one is
// refused. Nothing of a session comes after Stop.
func TestFencing(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		table, old, fresh := tableOf(way(counter(t)), 1), &memory{}, &memory{}
		first, refusal := start(t, table, 1, 2, 5, 50, old)
		if refusal != nil {
			t.Fatal(refusal)
		}
		for _, epoch := range []uint64{1, 2} {
			if _, refusal := start(t, table, 1, epoch, 5, 50, &memory{}); refusal == nil || refusal.Code != wire.CodeStaleEpoch {
				t.Errorf("epoch %d: %v", epoch, refusal)
			}
		}
		if _, refusal := start(t, table, 2, 1, 5, 50, &memory{}); refusal == nil || refusal.Code != wire.CodeCapacity {
			t.Errorf("beyond capacity: %v", refusal)
		}
		second, refusal := start(t, table, 1, 3, 5, 50, fresh)
		if refusal != nil {
			t.Fatal(refusal)
		}
		first.Credit(50, 0)
		synctest.Wait()
		if len(old.chunks) != 5 || len(fresh.chunks) != 5 || table.Load().Sessions != 1 {
			t.Errorf("%d and %d chunks, %+v", len(old.chunks), len(fresh.chunks), table.Load())
		}
		second.Stop()
		second.Credit(50, 0)
		synctest.Wait()
		if load := table.Load(); len(fresh.chunks) != 5 || load.Sessions != 0 || load.Bytes != 0 {
			t.Errorf("after its stop: %v, %+v", fresh.chunks, load)
		}
	})
}

// defective is an engine that makes ten chunks and fails.
type defective struct{ panics bool }

func (defective) Name() string        { return "defective" }
func (defective) Fingerprint() string { return "1" }
func (d defective) Open(context.Context, engine.Request, []engine.Chunk, engine.Progress) (engine.Generation, error) {
	return &broken{defective: d}, nil
}

type broken struct {
	defective
	made int
}

func (g *broken) Next(context.Context) (engine.Chunk, error) {
	if g.made++; g.made <= 10 {
		return engine.Chunk{Text: []byte("x")}, nil
	}
	if g.panics {
		panic("a defect")
	}
	return engine.Chunk{}, errors.New("a fault")
}
func (g *broken) Close() error { return nil }

// TestDefect: an engine's error or panic ends one session, with a note, and gives its place back.
func TestDefect(t *testing.T) {
	for panics, want := range map[bool]string{false: "a fault", true: "engine panicked: a defect"} {
		eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
			table := tableOf(way(defective{panics}), 1)
			out := &memory{}
			if _, refusal := start(t, table, 1, 1, 100, 50, out); refusal != nil {
				t.Fatal(refusal)
			}
			failed, ok := out.last().(session.Failed)
			if !ok || failed.Err.Code != wire.CodeEngine || !strings.Contains(failed.Err.Message, want) || len(out.chunks) != 10 {
				t.Errorf("%d chunks, %+v", len(out.chunks), out.last())
			}
			if load := table.Load(); load.Sessions != 0 || load.Bytes != 0 {
				t.Errorf("left: %+v", load)
			}
		})
	}
}
