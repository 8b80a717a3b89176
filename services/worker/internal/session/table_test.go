package session_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/shared/wire"
)

// named is an engine under another name.
type named struct {
	engine.Engine
	name string
}

func (n named) Name() string { return n.name }

// TestModelsChange: sessions of a model that is gone go on, and those of one that stays keep their places.
func TestModelsChange(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(engine.Engine) engine.Engine) {
		a, b := session.Model{Engine: named{way(counter(t)), "a"}, Capacity: 1}, session.Model{Engine: named{way(counter(t)), "b"}}
		table := session.NewTable(session.Config{Capacity: 9, MaxBytes: 1 << 20, Log: zap.NewNop()})
		try := func(stream uint64, want wire.Code) (*session.Session, *memory) {
			t.Helper()
			out := &memory{}
			s, refusal := start(t, table, stream, 1, 5, 50, out)
			if refusal != nil && refusal.Code != want || refusal == nil && want != "" {
				t.Errorf("stream %d: %v, want %q", stream, refusal, want)
			}
			return s, out
		}
		if len(table.Models()) != 0 {
			t.Errorf("it has %v", table.Models())
		}
		try(1, wire.CodeModel)
		table.SetModels([]session.Model{a})
		first, out := try(2, "")
		try(3, wire.CodeCapacity)
		table.SetModels([]session.Model{a, b})
		try(4, wire.CodeCapacity) // the place is still taken
		table.SetModels([]session.Model{b})
		try(5, "")
		if models := table.Models(); len(models) != 1 || models[0].Name() != "b" {
			t.Errorf("it has %v", models)
		}
		first.Credit(100, 0)
		synctest.Wait()
		if _, ok := out.last().(session.Ended); !ok || len(out.chunks) != 50 {
			t.Errorf("of a model that is gone: %d chunks, %+v", len(out.chunks), out.last())
		}
		if load := table.Load(); load.Sessions != 1 {
			t.Errorf("left: %+v", load)
		}
	})
}

// TestWithhold: while engines take nothing no session begins, those that there are go on, and the directors know why, once.
func TestWithhold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := tableOf(counter(t), 9)
		var told []string
		leave := table.Join(func(s session.State) { told = append(told, fmt.Sprintf("%v %s", s.Available, s.Reason)) })
		defer leave()
		out := &memory{}
		s, refusal := start(t, table, 1, 1, 5, 50, out)
		if refusal != nil {
			t.Fatal(refusal)
		}
		table.Withhold("the server is away")
		table.Withhold("the server is away")
		if _, refusal := start(t, table, 2, 1, 5, 50, &memory{}); refusal == nil || refusal.Code != wire.CodeUnavailable || refusal.Message != "the server is away" {
			t.Errorf("got %v", refusal)
		}
		s.Credit(100, 0)
		synctest.Wait()
		if len(out.chunks) != 50 {
			t.Errorf("%d chunks", len(out.chunks))
		}
		table.Fail("simulated")
		table.Withhold("")
		table.Withhold("the server is away again")
		table.Recover()
		table.Withhold("")
		if want := []string{"true ", "false the server is away", "false simulated", "false the server is away again", "true "}; !slices.Equal(told, want) {
			t.Errorf("told %q\nwant %q", told, want)
		}
		if load := table.Load(); !load.Available {
			t.Errorf("got %+v", load)
		}
	})
}
