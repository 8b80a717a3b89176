package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/shared/wire"
)

// stepping gives its generations one chunk a step. It makes a step when it has nothing for one that asks; or, where it is
// manual, when it is told to.
type stepping struct {
	engine.Engine
	manual   bool
	captures bool         // generations have a state to capture
	defect   func() error // of Step; nil for none

	wanted chan struct{} // capacity 1
	steps  atomic.Int64
}

func newStepping(e engine.Engine) *stepping {
	return &stepping{Engine: e, wanted: make(chan struct{}, 1)}
}

// step makes one step of a manual engine.
func (e *stepping) step() {
	e.wanted <- struct{}{}
	synctest.Wait()
}

func (e *stepping) Step(ctx context.Context) error {
	if e.defect != nil {
		return e.defect()
	}
	select {
	case <-e.wanted:
		e.steps.Add(1)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *stepping) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := e.Engine.Open(ctx, req, prefix, progress)
	s := &stepped{Generation: g, engine: e, seen: e.steps.Load()}
	if e.captures {
		return captured{s}, err
	}
	return s, err
}

type stepped struct {
	engine.Generation
	engine *stepping
	seen   int64 // the step of the last chunk
}

func (g *stepped) TryNext() (engine.Chunk, error) {
	now := g.engine.steps.Load()
	if now > g.seen {
		g.seen = now
		return g.Next(context.Background())
	}
	if !g.engine.manual {
		select {
		case g.engine.wanted <- struct{}{}:
		default:
		}
	}
	return engine.Chunk{}, engine.ErrNotYet
}

type captured struct{ *stepped }

func (captured) Capture([]byte) ([]byte, error) { return nil, nil }

// lane is an outlet that shares its log with others.
type lane struct {
	log  *[]string
	name string
}

func (l lane) Room(context.Context) error { return nil }
func (l lane) PutChunk(wire.Chunk)        { *l.log = append(*l.log, l.name) }
func (l lane) Flush()                     { *l.log = append(*l.log, "flush") }
func (l lane) Tell(session.Note)          {}

// TestStepLeavesAtOnce: what all sessions have after a step is put before any of it is let go.
func TestStepLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newStepping(counter(t))
		e.manual = true
		table, log := tableOf(e, 2), []string(nil)
		for i, name := range []string{"a", "b"} {
			if _, refusal := start(t, table, uint64(i), 1, 3, 3, lane{&log, name}); refusal != nil {
				t.Fatal(refusal)
			}
		}
		for range 3 {
			log = nil
			e.step()
			if want := []string{"a", "b", "flush", "flush"}; !slices.Equal(log, want) {
				t.Fatalf("a step does %q, want %q", log, want)
			}
		}
		e.step() // to the finish
		if left := table.Load().Sessions; left != 0 {
			t.Errorf("%d sessions are left", left)
		}
	})
}

// TestSomebodyWaitsForSteps: whichever session is stopped or has no credit, the others go on.
func TestSomebodyWaitsForSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 5
		e := newStepping(counter(t))
		e.manual = true
		table := tableOf(e, sessions)
		var all []*session.Session
		var outs []*memory
		for i := range uint64(sessions) {
			out := &memory{}
			s, refusal := start(t, table, i, 1, 1, 50, out)
			if refusal != nil {
				t.Fatal(refusal)
			}
			all, outs = append(all, s), append(outs, out)
		}
		for i, s := range all {
			for _, other := range all {
				other.Credit(uint64(i+1), 0)
			}
			synctest.Wait()
			e.step()
			for n, out := range outs[i:] {
				if len(out.chunks) != i+1 {
					t.Errorf("session %d has %d chunks after %d steps", i+n, len(out.chunks), i+1)
				}
			}
			s.Stop()
			synctest.Wait()
		}
		for i, out := range outs {
			if len(out.chunks) != i+1 {
				t.Errorf("session %d has %d chunks, it was stopped after %d", i, len(out.chunks), i+1)
			}
		}
	})
}

// TestDefectInABatch: a generation that panics ends its own session.
func TestDefectInABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newStepping(&firstDefective{Engine: counter(t)})
		e.manual = true
		table, first, second := tableOf(e, 2), &memory{}, &memory{}
		for i, out := range []*memory{first, second} {
			if _, refusal := start(t, table, uint64(i), 1, 100, 50, out); refusal != nil {
				t.Fatal(refusal)
			}
		}
		for range 51 {
			e.step()
		}
		if failed, ok := first.last().(session.Failed); !ok || !strings.Contains(failed.Err.Message, "engine panicked: a defect") || len(first.chunks) != 10 {
			t.Errorf("%d chunks, %+v", len(first.chunks), first.last())
		}
		if _, ok := second.last().(session.Ended); !ok || len(second.chunks) != 50 {
			t.Errorf("beside it: %d chunks, %+v", len(second.chunks), second.last())
		}
	})
}

// firstDefective is an engine whose first generation panics after ten chunks.
type firstDefective struct {
	engine.Engine
	opened atomic.Bool
}

func (e *firstDefective) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if e.opened.Swap(true) {
		return e.Engine.Open(ctx, req, prefix, progress)
	}
	return defective{panics: true}.Open(ctx, req, prefix, progress)
}

// TestNoSteps: where the engine has no steps any more all its sessions end, each with a note.
func TestNoSteps(t *testing.T) {
	defects := map[string]func() error{
		"a fault":                  func() error { return errors.New("a fault") },
		"engine panicked: a fault": func() error { panic("a fault") },
	}
	for want, defect := range defects {
		synctest.Test(t, func(t *testing.T) {
			e := newStepping(counter(t))
			e.defect = defect
			table := tableOf(e, 3)
			for i := range uint64(3) {
				out := &memory{}
				if _, refusal := start(t, table, i, 1, 100, 50, out); refusal != nil {
					t.Fatal(refusal)
				}
				if failed, ok := out.last().(session.Failed); !ok || !strings.Contains(failed.Err.Message, want) {
					t.Errorf("%+v, want %q", out.last(), want)
				}
			}
			if left := table.Load().Sessions; left != 0 {
				t.Errorf("%d sessions are left", left)
			}
		})
	}
}

// TestStateIsNoPartOfABatch: while a state is copied its generation waits, and no other one with it.
func TestStateIsNoPartOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newStepping(counter(t))
		e.manual, e.captures = true, true
		out := &memory{}
		if _, refusal := start(t, tableOf(e, 1), 1, 1, 100, 50, out); refusal != nil {
			t.Fatal(refusal)
		}
		if _, ok := out.last().(session.Ended); !ok || len(out.chunks) != 50 {
			t.Errorf("%d chunks without a step, %+v", len(out.chunks), out.last())
		}
	})
}
