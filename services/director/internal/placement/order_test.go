package placement_test

import (
	"testing"

	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/shared/migration"
)

// TestOrder has older streams move before those with a higher priority, these before the others, and among equals the lower
// number.
func TestOrder(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		for i, ask := range []request{
			{Started: 2, Priority: 1}, {Started: 3}, {Started: 2, Priority: 5}, {Started: 1}, {Started: 2, Priority: 1}, {Started: 3, Priority: 1<<32 - 1},
		} {
			ask.Kind = migration.Failover
			w.session(uint64(i+1), ask)
		}
		w.said()
		w.worker("a", 10)
		w.expect("4→a 3→a 1→a 5→a 6→a 2→a")
	})
}

// TestOrderOfNewStreams has those with a higher priority begin before older ones, whosever they are. Of equal ones
// those of who has fewest go first.
func TestOrderOfNewStreams(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		for i, ask := range []request{
			{Started: 1, Holder: "x"},
			{Started: 2, Priority: 1, Holder: "x"},
			{Started: 3, Priority: 1, Holder: "y"},
			{Started: 4, Priority: 9, Holder: "x"},
			{Started: 5, Kind: migration.Failover, Holder: "y"},
			{Started: 1, Priority: 9, Holder: "x"},
		} {
			w.session(uint64(i+1), ask)
		}
		w.said()
		w.worker("a", 10)
		w.expect("6→a 5→a 4→a 3→a 2→a 1→a")
	})
}

// TestOrderAcrossNeeds has the oldest go first, whatever they need.
func TestOrderAcrossNeeds(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.session(1, request{Started: 3, Kind: migration.Failover, Need: need{Fingerprint: "x"}})
		w.session(2, request{Started: 2})
		w.session(3, request{Started: 1, Kind: migration.Failover})
		w.said()
		w.worker("a", 10, runs("x"))
		w.expect("3→a 2→a 1→a")
	})
}

// TestPlannedComesLast has all kinds wait for one place after another.
func TestPlannedComesLast(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.session(1, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		w.session(2, request{Kind: migration.Placement, Started: 9})
		w.session(3, request{Kind: migration.Failover, Started: 8})
		w.session(4, request{Kind: migration.Failover, Need: need{Fingerprint: "of nobody"}})
		w.said()
		w.worker("a", 1)
		w.expect("3→a")
		w.worker("b", 1)
		w.expect("2→b")
		w.worker("c", 1)
		w.expect("1→c")
	})
}

// TestPlannedTakesNoPlaceOfAFailover has failovers wait because as many are under way as may be: the places that are
// left are theirs.
func TestPlannedTakesNoPlaceOfAFailover(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1}, func(w *world) {
		w.worker("a", 2)
		w.ask(1, migration.Failover)
		w.ask(2, migration.Failover)
		w.session(3, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		w.expect("1→a")
		w.sessions[1].handoverEnded()
		w.expect("2→a 3 waits: all workers are full;")
	})
}

// TestFailoversDoNotHoldUpNewStreams has one failover under way, which is all that may be, and another one waiting.
func TestFailoversDoNotHoldUpNewStreams(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1}, func(w *world) {
		w.worker("a", 10)
		w.ask(1, migration.Failover)
		w.ask(2, migration.Failover)
		w.ask(3, migration.Placement)
		w.expect("1→a 3→a")
		w.sessions[1].handoverEnded()
		w.expect("2→a")
	})
}

// TestPlannedNeverStays offers a planned handover nothing but the worker that the stream is on.
func TestPlannedNeverStays(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 2, runs("x"))
		w.session(1, request{Kind: migration.Planned, Need: need{Avoid: "a", Fingerprint: "x"}})
		w.expect("1 waits: no other connected worker runs the engine that this stream began with;")
		w.worker("b", 1, runs("y"))
		w.expect("")
		w.worker("c", 1, runs("x"))
		w.expect("1→c")
		w.sessions[1].release()
		w.empty()
	})
}

func TestOnlyOneWorkerWillDo(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 5)
		b := w.worker("b", 1)
		w.session(1, request{Kind: migration.Planned, Need: need{Avoid: "a", Only: "b"}})
		w.session(2, request{Kind: migration.Planned, Need: need{Avoid: "c", Only: "b"}}).stays = true
		w.expect("1→b 2 waits: all workers are full;")
		w.sessions[1].release()
		w.expect("2→b")
		b.Lose(link.CauseTether)
		w.session(3, request{Kind: migration.Planned, Need: need{Avoid: "c", Only: "b"}})
		w.expect("3 waits: b is not connected;")
		w.worker("b", 1)
		w.expect("3→b")
	})
}

// TestHandoversPerTarget allows two handovers under way to one worker, whatever room it has.
func TestHandoversPerTarget(t *testing.T) {
	for _, kind := range []migration.Kind{migration.Failover, migration.Planned} {
		inWorld(t, placement.Config{MaxHandovers: 10, MaxPerTarget: 2}, func(w *world) {
			a := w.worker("a", 100)
			for id := uint64(1); id <= 5; id++ {
				w.session(id, request{Kind: kind, Need: need{Avoid: "x"}})
			}
			w.expect("1→a 2→a")
			w.ask(6, migration.Placement) // counts for nothing
			w.expect("6→a")
			w.sessions[1].handoverEnded()
			w.sessions[1].handoverEnded() // again: nothing to give back
			w.expect("3→a")
			w.sessions[2].release()
			w.sessions[2].handoverEnded()
			w.expect("4→a")
			if load := w.load("a"); load.Incoming != 2 {
				t.Errorf("%s: %+v", kind, load)
			}
			b := w.worker("b", 100)
			w.expect("5→b")
			for _, s := range w.sessions {
				s.stays = true
			}
			for _, one := range []*fleettest.Fake{a, b} {
				one.Lose(link.CauseTether)
			}
			w.worker("c", 100)
			for id := uint64(11); id <= 12; id++ {
				w.session(id, request{Kind: kind, Need: need{Avoid: "x"}})
			}
			w.expect("11→c 12→c") // nothing is left of those that were lost
			w.sessions[11].release()
			w.sessions[12].release()
			w.empty()
		})
	}
}

// TestPlannedHoldsUpNoFailover has planned handovers to a worker wait for an operator, as many as may be: streams
// without a worker do not wait for him.
func TestPlannedHoldsUpNoFailover(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 2}, func(w *world) {
		w.worker("a", 100)
		for id := uint64(1); id <= 3; id++ {
			w.session(id, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		}
		w.expect("1→a 2→a")
		for id := uint64(4); id <= 6; id++ {
			w.ask(id, migration.Failover)
		}
		w.expect("4→a 5→a")
		w.sessions[1].handoverEnded()
		w.expect("") // two failovers are under way to it: not the time for a planned one
		w.sessions[4].handoverEnded()
		w.expect("6→a")
		w.sessions[5].handoverEnded()
		w.sessions[6].handoverEnded()
		w.expect("3→a")
	})
}

// TestKindsAreCountedApart allows one failover and one planned handover at once.
func TestKindsAreCountedApart(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1, MaxPerTarget: 10}, func(w *world) {
		w.worker("a", 100)
		w.session(1, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		w.session(2, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		w.ask(3, migration.Failover)
		w.expect("1→a 3→a")
		w.ask(4, migration.Failover)
		w.sessions[1].handoverEnded()
		w.expect("") // a failover waits
		w.sessions[3].handoverEnded()
		w.expect("4→a 2→a")
		w.sessions[4].release()
		w.sessions[2].release()
		w.empty()
	})
}

// TestReleaseWhileWaiting takes requests back that were never granted, notified and not.
func TestReleaseWhileWaiting(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1}, func(w *world) {
		w.session(1, request{Kind: migration.Planned, Need: need{Avoid: "x"}})
		w.expect("1 waits: no worker is connected;")
		w.sessions[1].release()
		w.worker("a", 9)
		w.ask(2, migration.Failover)
		w.ask(3, migration.Failover) // beyond the limit, not told
		w.sessions[3].release()
		w.sessions[2].release()
		w.expect("2→a")
		w.empty()
	})
}
