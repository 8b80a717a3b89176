package maintenance

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

func TestUneven(t *testing.T) {
	for name, c := range map[string]struct {
		workers []spread
		want    string // from, to, how many
	}{
		"nobody":                 {nil, "  0"},
		"one":                    {[]spread{{"a", "x", 9, 5, ""}}, "  0"},
		"even":                   {[]spread{{"a", "x", 9, 3, ""}, {"b", "x", 9, 3, ""}}, "  0"},
		"as even as it gets":     {[]spread{{"a", "x", 9, 4, ""}, {"b", "x", 9, 3, ""}}, "  0"},
		"one too many":           {[]spread{{"a", "x", 9, 4, ""}, {"b", "x", 9, 2, ""}}, "a b 1"},
		"all on one":             {[]spread{{"a", "x", 9, 6, ""}, {"b", "x", 9, 0, ""}}, "a b 3"},
		"fullest and emptiest":   {[]spread{{"a", "x", 9, 3, ""}, {"b", "x", 9, 5, ""}, {"c", "x", 9, 1, ""}}, "b c 2"},
		"by capacity":            {[]spread{{"a", "x", 10, 5, ""}, {"b", "x", 2, 1, ""}}, "  0"},
		"small and full":         {[]spread{{"a", "x", 2, 2, ""}, {"b", "x", 20, 0, ""}}, "a b 1"},
		"large and half full":    {[]spread{{"a", "x", 20, 12, ""}, {"b", "x", 2, 0, ""}}, "a b 1"},
		"other engines":          {[]spread{{"a", "x", 9, 6, ""}, {"b", "y", 9, 0, ""}}, "  0"},
		"the worse of two":       {[]spread{{"a", "x", 9, 2, ""}, {"b", "x", 9, 0, ""}, {"c", "y", 9, 4, ""}, {"d", "y", 9, 0, ""}}, "c d 2"},
		"the emptiest is full":   {[]spread{{"a", "x", 9, 6, ""}, {"b", "x", 9, 0, "full"}}, "  0"},
		"the emptiest drained":   {[]spread{{"a", "x", 9, 6, ""}, {"b", "x", 9, 0, "drained"}}, "  0"},
		"the emptiest is lost":   {[]spread{{"a", "x", 9, 6, ""}, {"b", "x", 9, 0, "lost"}}, "  0"},
		"the fullest takes none": {[]spread{{"a", "x", 9, 6, "full"}, {"b", "x", 9, 0, ""}}, "  0"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{AtOnce: 1, SwapsPerSecond: 1}, func(w *world) {
				w.spread(c.workers)
				from, to, n := w.uneven(nil)
				if got := fmt.Sprintf("%s %s %d", from, to, n); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

// TestUnevenCountsWhatIsUnderWay has a swap under way count as done.
func TestUnevenCountsWhatIsUnderWay(t *testing.T) {
	inWorld(t, Config{AtOnce: 1, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 4, ""}, {"b", "x", 9, 0, ""}})
		all := w.Service.on("a", "")
		for n, want := range []string{"a b 2", "a b 1", "  0"} {
			going := map[*session.Session]string{}
			for _, one := range all[:n] {
				going[one] = "b"
			}
			from, to, left := w.uneven(going)
			if got := fmt.Sprintf("%s %s %d", from, to, left); got != want {
				t.Errorf("with %d under way %q, want %q", n, got, want)
			}
		}
	})
}

// TestTiesAreDecided asks twice where two pairs of workers are equally uneven: runs of a simulation have to be equal.
func TestTiesAreDecided(t *testing.T) {
	inWorld(t, Config{AtOnce: 1, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 2, ""}, {"b", "x", 9, 0, ""}, {"c", "y", 9, 2, ""}, {"d", "y", 9, 0, ""}})
		first, _, _ := w.uneven(nil)
		for range 50 {
			if from, _, _ := w.uneven(nil); from != first {
				w.Fatalf("now from %s, now from %s", first, from)
			}
		}
	})
}

func TestRebalance(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 10}, func(w *world) {
		w.spread([]spread{{"a", "x", 40, 20, ""}, {"b", "x", 20, 1, ""}, {"c", "y", 40, 5, ""}})
		start := time.Now()
		moves, err := w.Rebalance(w.ctx, func(Moves) {})
		if err != nil || moves.Moved != 6 || moves.Failed != 0 || moves.Remaining != 0 {
			t.Errorf("%+v, %v", moves, err)
		}
		if got := w.on("a", "b", "c"); got != "[14 7 5]" {
			t.Errorf("sessions %s", got)
		}
		if took := time.Since(start); took < 600*time.Millisecond || took > 2*time.Second {
			t.Errorf("six moves, ten per second, took %v", took)
		}
		if moves, err := w.Rebalance(w.ctx, func(Moves) {}); err != nil || moves.Moved != 0 {
			t.Errorf("once more: %+v, %v", moves, err)
		}
	})
}

// TestRebalanceInVain has a target that refuses.
func TestRebalanceInVain(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 10}, func(w *world) {
		w.spread([]spread{{"a", "x", 40, 20, ""}, {"b", "x", 20, 0, ""}})
		w.workers["b"].refuse(wire.CodeTokenUnknown)
		moves, err := w.Rebalance(w.ctx, func(Moves) {})
		if code(err) != wire.CodeConflict || !strings.Contains(err.Error(), "11 swaps failed; the last: token_unknown: no") || moves.Moved != 0 {
			t.Errorf("%+v, %v", moves, err)
		}
		if got := w.on("a", "b"); got != "[20 0]" || len(w.sessions.Swaps()) != 0 {
			t.Errorf("sessions %s, swaps %+v", got, w.sessions.Swaps())
		}
	})
}

// TestRebalanceAroundWhatIsBusy moves other sessions than the one that waits for its operator's word.
func TestRebalanceAroundWhatIsBusy(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 50}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 6, ""}, {"b", "x", 9, 0, ""}})
		oldest := w.Service.on("a", "")[0]
		oldest.Initiate(handover.Plan{Confirm: true, Done: func(migration.Record) {}})
		synctest.Wait()
		if moves, err := w.Rebalance(w.ctx, func(Moves) {}); err != nil || moves.Moved != 3 {
			t.Errorf("%+v, %v", moves, err)
		}
		if r := oldest.Swap(); r == nil || r.State != migration.WaitingConfirmation.String() {
			t.Errorf("the operator's swap is %+v", r)
		}
	})
}

// TestRebalanceGivenUp ends while swaps wait for confirmation.
func TestRebalanceGivenUp(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 50, Confirm: true}, func(w *world) {
		w.spread([]spread{{"a", "x", 40, 20, ""}, {"b", "x", 40, 0, ""}})
		ctx, cancel := context.WithCancel(w.ctx)
		time.AfterFunc(time.Second, cancel)
		if _, err := w.Rebalance(ctx, func(Moves) {}); code(err) != wire.CodeCancelled {
			t.Errorf("got %v", err)
		}
		if got := w.on("a", "b"); got != "[20 0]" || len(w.sessions.Swaps()) != 0 || w.over.Load() != 5 {
			t.Errorf("sessions %s, swaps %+v, %d are over", got, w.sessions.Swaps(), w.over.Load())
		}
	})
}
