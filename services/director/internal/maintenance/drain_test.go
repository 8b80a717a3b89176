package maintenance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
)

func TestDrain(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 50, 30, ""}, {"b", "x", 50, 0, ""}})
		last, most := Moves{Remaining: 30}, 0
		moves, err := w.Drain(w.ctx, "a", 0, false, func(m Moves) {
			if m.Moved < last.Moved || m.Remaining > last.Remaining {
				t.Errorf("after %+v comes %+v", last, m)
			}
			workers, _ := w.placement.Workers()
			last, most = m, max(most, workers[1].Incoming)
		})
		if err != nil || moves.Moved != 30 || moves.Remaining != 0 || moves.Failed != 0 || moves.Blockers != nil {
			t.Errorf("%+v, %v", moves, err)
		}
		if got := w.on("a", "b"); got != "[0 30]" || most > 5 {
			t.Errorf("sessions %s, %d swaps at once", got, most)
		}
		w.begin(1)
		if got := w.on("a", "b"); got != "[0 31]" {
			t.Errorf("a new stream: %s", got)
		}
	})
}

// TestDrainMovesFewStates has engines with a state: few of them are on their way at once, however many swaps there may
// be, but swaps whose state has arrived and that wait for their cut are not in the way of others.
func TestDrainMovesFewStates(t *testing.T) {
	inWorld(t, Config{AtOnce: 10, Transfers: 3, SwapsPerSecond: 1}, func(w *world) {
		stateful := func(p *link.Peer) { p.Models[0].Stateful, p.MgmtAddr = true, p.Label+":63001" }
		w.worker("a", 50, stateful)
		w.begin(40)
		b := w.worker("b", 50, stateful)
		most := 0
		moves, err := w.Drain(w.ctx, "a", 0, false, func(Moves) {
			workers, _ := w.placement.Workers()
			most = max(most, workers[1].Incoming)
		})
		if err != nil || moves.Moved != 40 || moves.Failed != 0 {
			t.Errorf("%+v, %v", moves, err)
		}
		if got := w.most.Load(); got != 3 {
			t.Errorf("%d states at once", got)
		}
		if most <= 3 || most > 10 {
			t.Errorf("%d swaps at once", most)
		}
		if n := b.asked(); n != 40 {
			t.Errorf("%d swaps", n)
		}
	})
}

// TestDrainNeedsMoreTime is too slow, and nothing else is wrong.
func TestDrainNeedsMoreTime(t *testing.T) {
	inWorld(t, Config{AtOnce: 1, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 50, 30, ""}, {"b", "x", 50, 0, ""}})
		moves, err := w.Drain(w.ctx, "a", time.Second, false, func(Moves) {})
		if code(err) != wire.CodeConflict || !strings.Contains(err.Error(), "it needs more time") || moves.Moved == 0 || moves.Remaining == 0 {
			t.Errorf("%+v, %v", moves, err)
		}
	})
}

// TestDrainInVain drains a worker whose sessions can go nowhere, until the time is up.
func TestDrainInVain(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 3, ""}, {"b", "y", 9, 0, ""}})
		if _, err := w.Drain(w.ctx, "nobody", 0, true, func(Moves) {}); code(err) != wire.CodeNotFound {
			t.Errorf("draining nobody: %v", err)
		}
		start := time.Now()
		moves, err := w.Drain(w.ctx, "a", 10*time.Second, false, func(Moves) {})
		if took := time.Since(start).Round(time.Second); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		const why = "no other connected worker runs the engine"
		if code(err) != wire.CodeConflict || !strings.Contains(err.Error(), "the time is up with 3 streams still on a") || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v", err)
		}
		if moves.Remaining != 3 || len(moves.Blockers) != 1 || !strings.Contains(moves.Blockers[0], why) {
			t.Errorf("got %+v", moves)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		time.AfterFunc(time.Second, cancel)
		if _, err = w.Drain(ctx, "a", 0, true, func(Moves) {}); code(err) != wire.CodeConflict {
			t.Errorf("given up: %v", err)
		}
		w.wait(time.Second)
		if got := w.on("a", "b"); got != "[3 0]" || len(w.sessions.Swaps()) != 0 {
			t.Errorf("sessions %s, swaps %+v", got, w.sessions.Swaps())
		}
	})
}

// TestDrainToWhoRefuses has a target that wants nobody: it is not asked all the time.
func TestDrainToWhoRefuses(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 3, ""}, {"b", "x", 9, 0, ""}})
		b := w.workers["b"]
		b.refuse(wire.CodeTokenUnknown)
		moves, err := w.Drain(w.ctx, "a", 10*time.Second, false, func(Moves) {})
		if n := b.asked(); n < 30 || n > 3*10*10 {
			t.Errorf("asked %d times in 10 s", n)
		}
		if err == nil || !strings.Contains(err.Error(), "the last swap failed: token_unknown: no") || moves.Failed == 0 {
			t.Errorf("%+v, %v", moves, err)
		}
		b.refuse("")
		if moves, err = w.Drain(w.ctx, "a", 10*time.Second, false, func(Moves) {}); err != nil || moves.Moved != 3 {
			t.Errorf("%+v, %v", moves, err)
		}
	})
}

// TestDrainOfWhatIsBusy drains while a session waits for its operator's word: that is waited for, without haste.
func TestDrainOfWhatIsBusy(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 50, Confirm: true}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 1, ""}, {"b", "x", 9, 0, ""}})
		swapped := make(chan error, 1)
		w.running.Go(func() {
			_, err := w.Swap(w.ctx, "conn-1", 0, "b")
			swapped <- err
		})
		synctest.Wait()
		drained := make(chan error, 1)
		rounds := 0
		w.running.Go(func() {
			_, err := w.Drain(w.ctx, "a", 0, false, func(Moves) { rounds++ })
			drained <- err
		})
		w.wait(10 * time.Second)
		if rounds > 300 {
			t.Errorf("%d rounds in 10 s", rounds)
		}
		if err := w.Decide("conn-1", 0, true, ""); err != nil {
			t.Error(err)
		}
		if err := errors.Join(<-swapped, <-drained); err != nil {
			t.Error(err)
		}
		if got := w.on("a", "b"); got != "[0 1]" {
			t.Errorf("sessions %s", got)
		}
	})
}

// TestUndrainEndsADrain puts a worker back into use while it is drained.
func TestUndrainEndsADrain(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 3, ""}, {"b", "y", 9, 0, ""}})
		time.AfterFunc(time.Second, func() {
			if err := w.Undrain("a"); err != nil {
				t.Error(err)
			}
		})
		_, err := w.Drain(w.ctx, "a", time.Minute, false, func(Moves) {})
		if code(err) != wire.CodeConflict || !strings.Contains(err.Error(), "back into use") {
			t.Errorf("got %v", err)
		}
		if err := w.Undrain("a"); code(err) != wire.CodeInvalid {
			t.Errorf("undrained twice: %v", err)
		}
	})
}

// TestWorkerLeaves empties one that is about to stop. The next one under its label is not meant.
func TestWorkerLeaves(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 5, ""}, {"b", "x", 9, 0, ""}})
		w.Leaving("a", "a-0") // of before
		w.Leaving("nobody", "1")
		w.wait(time.Second)
		if got := w.on("a", "b"); got != "[5 0]" {
			t.Errorf("sessions %s", got)
		}
		w.workers["a"].available(w, false)
		w.Leaving("a", "a-1")
		w.Leaving("a", "a-1") // it says so again
		w.wait(time.Second)
		if got := w.on("a", "b"); got != "[0 5]" {
			t.Errorf("sessions %s", got)
		}
	})
}

// TestCloseEndsWhatWorkersAskedFor has a worker leave that cannot be emptied.
func TestCloseEndsWhatWorkersAskedFor(t *testing.T) {
	inWorld(t, Config{AtOnce: 5, SwapsPerSecond: 1}, func(w *world) {
		w.spread([]spread{{"a", "x", 9, 5, ""}})
		w.Leaving("a", "a-1")
		w.wait(time.Second)
		w.Close()
		w.Leaving("a", "a-1") // too late
		if got := w.on("a"); got != "[5]" || len(w.sessions.Swaps()) != 0 {
			t.Errorf("sessions %s, swaps %+v", got, w.sessions.Swaps())
		}
	})
}
