package pool

import (
	"fmt"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/migration"
)

// settled is everything that must be 0 when no swap is under way.
func (w *world) settled() {
	w.t.Helper()
	if w.under != [3]int{} || w.untold != 0 {
		w.t.Errorf("%v swaps under way, %d untold", w.under, w.untold)
	}
	for _, l := range w.targets {
		if l.incoming != [3]int{} {
			w.t.Errorf("%v swaps under way to %s", l.incoming, l.Worker())
		}
	}
}

func (w *world) expect(want string) {
	w.t.Helper()
	if got := w.said(); got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOrderOfWaiters(t *testing.T) {
	for name, c := range map[string]struct {
		first, second Waiter
	}{
		"older before higher priority":       {Waiter{ID: 9, Started: 1}, Waiter{ID: 1, Started: 2, Priority: 7}},
		"as old, the higher priority":        {Waiter{ID: 9, Started: 1, Priority: 2}, Waiter{ID: 1, Started: 1, Priority: 1}},
		"as old and as important, by number": {Waiter{ID: 1, Started: 1, Priority: 3}, Waiter{ID: 2, Started: 1, Priority: 3}},
		"the highest priority there is":      {Waiter{ID: 9, Priority: 1<<32 - 1}, Waiter{ID: 1}},
	} {
		if c.first.compare(&c.second) >= 0 || c.second.compare(&c.first) <= 0 {
			t.Errorf("%s: not so", name)
		}
	}
	w := newWorld(t, 10)
	for _, ask := range []Waiter{{Started: 2, Priority: 1}, {Started: 3}, {Started: 2, Priority: 5}, {Started: 1}, {Started: 2, Priority: 1}} {
		w.session(uint64(len(w.sessions) + 1)).want(ask)
	}
	w.said()
	w.link("a", 10, "")
	w.expect("4→a 3→a 1→a 5→a 2→a")
}

// TestPlannedComesLast has all kinds wait for one place after another.
func TestPlannedComesLast(t *testing.T) {
	w := newWorld(t, 10)
	w.session(1).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	w.session(2).want(Waiter{Kind: migration.Placement, Started: 9})
	w.session(3).want(Waiter{Kind: migration.Failover, Started: 8})
	w.session(4).want(Waiter{Kind: migration.Failover, Fingerprint: "of nobody"})
	w.said()
	w.link("a", 1, "")
	w.expect("3→a")
	w.link("b", 1, "")
	w.expect("2→b")
	w.link("c", 1, "")
	w.expect("1→c")
}

// TestPlannedTakesNoPlaceOfAFailover has failovers wait because as many are under way as may be: the places that are
// left are theirs.
func TestPlannedTakesNoPlaceOfAFailover(t *testing.T) {
	w := newWorld(t, 1)
	w.link("a", 2, "")
	w.session(1).ask(migration.Failover)
	w.session(2).ask(migration.Failover)
	w.session(3).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	w.expect("1→a")
	w.Settle(w.sessions[1].wish)
	w.expect("2→a 3 waits: all workers are full;")
}

// TestPlannedNeverStays offers a planned swap nothing but the worker that the session is on.
func TestPlannedNeverStays(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 2, "x")
	w.session(1).want(Waiter{Kind: migration.Planned, Avoid: "a", Fingerprint: "x"})
	w.expect("1 waits: no other connected worker runs the engine that this stream began with;")
	w.link("b", 1, "y")
	w.expect("")
	w.link("c", 1, "x")
	w.expect("1→c")
	w.Release(w.sessions[1].wish)
	w.settled()
}

func TestWantedWorker(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 5, "")
	b := w.link("b", 1, "")
	w.session(1).want(Waiter{Kind: migration.Planned, Avoid: "a", Want: "b"})
	w.session(2).want(Waiter{Kind: migration.Planned, Avoid: "c", Want: "b"})
	w.expect("1→b 2 waits: all workers are full;")
	w.Release(w.sessions[1].wish)
	w.expect("2→b")
	b.lose()
	w.session(3).want(Waiter{Kind: migration.Planned, Avoid: "c", Want: "b"})
	w.said()
	w.link("b", 1, "")
	w.expect("3→b")
}

// TestSwapsPerTarget allows two swaps under way to one worker, whatever room it has.
func TestSwapsPerTarget(t *testing.T) {
	for _, kind := range []migration.Kind{migration.Failover, migration.Planned} {
		w := newWorld(t, 10)
		w.cfg.MaxPerTarget = 2
		a := w.link("a", 100, "")
		for id := uint64(1); id <= 5; id++ {
			w.session(id).want(Waiter{Kind: kind, Avoid: "x"})
		}
		w.expect("1→a 2→a")
		w.session(6).ask(migration.Placement) // counts for nothing
		w.expect("6→a")
		w.Settle(w.sessions[1].wish)
		w.Settle(w.sessions[1].wish) // again: nothing to give back
		w.expect("3→a")
		w.Release(w.sessions[2].wish)
		w.Settle(w.sessions[2].wish)
		w.expect("4→a")
		if a := w.targets[0]; a.incoming[kind] != 2 || w.under[kind] != 2 {
			t.Errorf("%s: %v to a, %v in all", kind, a.incoming, w.under)
		}
		b := w.link("b", 100, "")
		w.expect("5→b")
		for id := uint64(1); id <= 6; id++ {
			w.sessions[id].epoch = 0 // deaf to the loss: planned swaps before their cut
		}
		a.lose()
		b.lose()
		w.settled()
		for id := uint64(1); id <= 6; id++ {
			w.Release(w.sessions[id].wish)
		}
		w.settled()
	}
}

// TestPlannedSwapsHoldUpNoFailover has planned swaps to a worker wait for an operator, as many as may be: streams
// without a worker do not wait for him.
func TestPlannedSwapsHoldUpNoFailover(t *testing.T) {
	w := newWorld(t, 2)
	w.cfg.MaxPerTarget = 2
	w.link("a", 100, "")
	for id := uint64(1); id <= 3; id++ {
		w.session(id).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	}
	w.expect("1→a 2→a")
	w.session(4).ask(migration.Failover)
	w.session(5).ask(migration.Failover)
	w.session(6).ask(migration.Failover)
	w.expect("4→a 5→a")
	w.Settle(w.sessions[1].wish)
	w.expect("") // two failovers are under way to it: not the time for a planned one
	w.Settle(w.sessions[4].wish)
	w.expect("6→a")
	w.Settle(w.sessions[5].wish)
	w.Settle(w.sessions[6].wish)
	w.expect("3→a")
}

// TestKindsAreCountedApart allows one failover and one planned swap at once.
func TestKindsAreCountedApart(t *testing.T) {
	w := newWorld(t, 1)
	w.cfg.MaxPerTarget = 10
	w.link("a", 100, "")
	w.session(1).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	w.session(2).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	w.session(3).ask(migration.Failover)
	w.expect("1→a 3→a")
	w.session(4).ask(migration.Failover)
	w.Settle(w.sessions[1].wish)
	w.expect("") // a failover waits
	w.Settle(w.sessions[3].wish)
	w.expect("4→a 2→a")
	w.Release(w.sessions[4].wish)
	w.Release(w.sessions[2].wish)
	w.settled()
}

// TestReleaseWhileWaiting takes wishes back that were never granted, told and untold.
func TestReleaseWhileWaiting(t *testing.T) {
	w := newWorld(t, 1)
	w.session(1).want(Waiter{Kind: migration.Planned, Avoid: "x"})
	w.expect("1 waits: no worker is connected;")
	w.Release(w.sessions[1].wish)
	w.link("a", 9, "")
	w.session(2).ask(migration.Failover)
	w.session(3).ask(migration.Failover) // beyond the limit, not told
	w.Release(w.sessions[3].wish)
	w.Release(w.sessions[2].wish)
	w.expect("2→a")
	w.settled()
	if n := len(w.waiting[0]) + len(w.waiting[1]) + len(w.waiting[2]); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// TestOneSurvivor moves ten thousand sessions to the last worker, few at once. Each step is taken with the pool locked:
// it must not look at all who wait.
func TestOneSurvivor(t *testing.T) {
	const sessions = 10_000
	w := newWorld(t, 256)
	w.cfg.MaxPerTarget = 128
	dying := w.link("dying", sessions, "")
	for id := uint64(1); id <= sessions; id++ {
		w.session(id).ask(migration.Placement)
	}
	w.link("b", sessions, "")
	w.said()
	start := time.Now()
	dying.lose()
	moved := 0
	for ; moved < len(w.log); moved++ {
		var id uint64
		if _, err := fmt.Sscanf(w.log[moved], "%d→b", &id); err != nil {
			t.Fatalf("%s: %v", w.log[moved], err)
		}
		w.Settle(w.sessions[id].wish)
	}
	if took := time.Since(start); moved != sessions || took > 5*time.Second {
		t.Errorf("%d moved, in %v", moved, took)
	}
	w.settled()
}
