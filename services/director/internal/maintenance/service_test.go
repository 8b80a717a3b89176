package maintenance

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

func TestSwap(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 1, ""}, {"b", "x", 9, 0, ""}, {"c", "y", 9, 0, ""}, {"d", "x", 9, 0, "drained"}})
		for _, c := range []struct {
			connection, to string
			stream         uint64
			want           wire.Code
		}{
			{"conn-9", "", 0, wire.CodeNotFound},
			{"conn-1", "", 9, wire.CodeNotFound},
			{"conn-1", "nobody", 0, wire.CodeNotFound},
			{"conn-1", "a", 0, wire.CodeConflict},
			{"conn-1", "c", 0, wire.CodeInvalid},
			{"conn-1", "d", 0, wire.CodeConflict},
		} {
			if _, err := w.Swap(w.ctx, c.connection, c.stream, c.to); code(err) != c.want {
				t.Errorf("%+v: %v", c, err)
			}
		}
		r, err := w.Swap(w.ctx, "conn-1", 1, "")
		if err != nil || r.State != "Completed" || r.From != "a" || r.To != "b" || r.Cause != "operator" {
			t.Errorf("%+v, %v", r, err)
		}
		w.workers["a"].refuse(wire.CodeTokenExpired)
		if r, err = w.Swap(w.ctx, "conn-1", 0, "a"); err != nil || r.State != "Aborted" || r.Reason != "token_expired: no" {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestSwapGivenUp has the operator go away before the swap is confirmed.
func TestSwapGivenUp(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1, Confirm: true}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 1, ""}, {"b", "x", 9, 0, ""}})
		ctx, cancel := context.WithCancel(w.ctx)
		time.AfterFunc(time.Second, cancel)
		if r, err := w.Swap(ctx, "conn-1", 0, ""); err != nil || r.State != "Aborted" || r.Reason != "the operator gave it up" {
			t.Errorf("%+v, %v", r, err)
		}
		time.AfterFunc(time.Second, func() {
			if err := w.Decide("conn-1", 0, false, ""); err != nil {
				t.Error(err)
			}
		})
		if r, err := w.Swap(w.ctx, "conn-1", 0, ""); err != nil || r.State != "Aborted" || r.Reason != "vetoed by the operator" {
			t.Errorf("%+v, %v", r, err)
		}
		if err := w.Decide("conn-9", 0, true, ""); code(err) != wire.CodeNotFound {
			t.Errorf("got %v", err)
		}
		if err := w.Decide("conn-1", 0, true, ""); code(err) != wire.CodeNotFound {
			t.Errorf("got %v", err)
		}
	})
}

// TestGivingUpLeavesOthersAlone has an operator go away whose swap could not begin: that of another goes on.
func TestGivingUpLeavesOthersAlone(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1, Confirm: true}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 1, ""}, {"b", "x", 9, 0, ""}})
		w.running.Go(func() { _, _ = w.Swap(w.ctx, "conn-1", 0, "") })
		synctest.Wait()
		gone, cancel := context.WithCancel(w.ctx)
		cancel()
		if _, err := w.Swap(gone, "conn-1", 0, ""); code(err) != wire.CodeConflict {
			t.Errorf("got %v", err)
		}
		w.wait(time.Second)
		if swaps := w.sessions.Swaps(); len(swaps) != 1 {
			t.Errorf("under way are %+v", swaps)
		}
	})
}
