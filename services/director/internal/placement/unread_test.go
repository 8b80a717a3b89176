package placement_test

import (
	"fmt"
	"testing"

	"github.com/connswap/connswap/shared/migration"
)

// TestFewestPlacesFirst: of those who wait, who has fewest places goes first, also if the other ones' streams are older;
// age counts among one's own. The priority of a new stream counts before that.
func TestFewestPlacesFirst(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		for i := range 4 {
			w.session(uint64(i+1), request{Holder: "many", Started: 1})
		}
		w.session(5, request{Holder: "few", Started: 3})
		w.session(6, request{Holder: "few", Started: 3, Priority: 9})
		w.session(7, request{Holder: "other", Started: 9, Kind: migration.Failover, Need: need{Fingerprint: "x"}})
		w.said()
		w.worker("a", 7, runs("x"))
		w.expect("6→a 1→a 7→a 2→a 5→a 3→a 4→a")
	})
}

// TestUnreadGivesItsPlaceBack: to one that waits, whoever that is; of who has most places; and nobody reads it again, it
// waits behind all others.
func TestUnreadGivesItsPlaceBack(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 4)
		all := map[uint64]*session{}
		for id, holder := range map[uint64]string{1: "many", 2: "many", 3: "many", 4: "few"} {
			all[id] = w.session(id, request{Holder: holder, Started: int64(id)})
		}
		w.said()
		for _, id := range []uint64{2, 3, 4} {
			w.Unread(&all[id].Request, true)
		}
		w.expect("") // nobody waits
		honest := w.session(5, request{Holder: "honest", Started: 50})
		w.expect("5→a 3 waits: all workers are full;")
		w.session(6, request{Holder: "honest", Started: 60})
		w.expect("6→a 2 waits: all workers are full;")
		w.Unread(&all[3].Request, false)
		w.expect("3→a 4 waits: all workers are full;") // it is read again, and 4 is not
		w.session(7, request{Holder: "late", Started: 70})
		w.expect("7 waits: all workers are full;") // what is read keeps its place
		honest.release()
		w.expect("7→a")
		all[1].release()
		w.expect("4→a") // there is room
		all[4].handoverEnded()
		w.Unread(&all[2].Request, false)
		w.expect("2→a 4 waits: all workers are full;")
		w.session(8, request{Holder: "late", Started: 80})
		w.expect("8 waits: all workers are full;")
	})
}

// TestUnreadElsewhereIsNoHelp: a place is taken from nobody if the one who waits could not have it.
func TestUnreadElsewhereIsNoHelp(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 1, runs("x"))
		one := w.session(1, request{})
		w.said()
		w.Unread(&one.Request, true)
		w.session(2, request{Need: need{Fingerprint: "y"}})
		w.expect("2 waits: no connected worker runs the engine that this stream began with;")
		one.release()
		w.session(3, request{Kind: migration.Placement})
		w.expect("3→a")
	})
}

// TestManyUnread: each that waits gets one place, however many there are.
func TestManyUnread(t *testing.T) {
	const n = 100
	inWorld(t, usual, func(w *world) {
		w.worker("a", n)
		for id := range uint64(n) {
			w.Unread(&w.session(id+1, request{Holder: fmt.Sprint(id % 7)}).Request, true)
		}
		for id := range uint64(n / 2) {
			w.session(n+id+1, request{Holder: "honest"})
		}
		if load := w.load("a"); load.Sessions != n {
			t.Errorf("%+v", load)
		}
		for id := range uint64(n / 2) {
			if s := w.sessions[n+id+1]; s.at == nil || !w.HasPlace(&s.Request, s.at) {
				t.Errorf("%d has no place", s.ID)
			}
		}
		if _, waiting := w.Workers(); waiting != n/2 {
			t.Errorf("%d wait", waiting)
		}
	})
}
