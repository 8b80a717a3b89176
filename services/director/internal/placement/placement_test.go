package placement_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

type (
	request = placement.Request
	need    = routing.Need
)

var usual = placement.Config{MaxHandovers: 10}

func TestRoundRobinOverRoom(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 2)
		w.worker("b", 1)
		w.available(w.worker("c", 2), false)
		for id := uint64(1); id <= 4; id++ {
			w.ask(id, migration.Placement)
		}
		w.expect("1→a 2→b 3→a 4 waits: all workers are full;")
		w.sessions[2].release()
		w.expect("4→b")
	})
}

func TestReasonsForWaiting(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		one := w.ask(1, migration.Placement)
		w.Queue(&one.Request) // twice is once
		w.expect("1 waits: no worker is connected;")
		a := w.worker("a", 1, runs("x"))
		w.expect("1→a")
		w.available(a, false)
		w.ask(2, migration.Placement)
		w.expect("2 waits: no worker is available;")
		w.available(a, true)
		w.expect("")
		w.session(3, request{Need: need{Fingerprint: "y"}})
		w.ask(4, migration.Placement)
		w.expect("3 waits: no connected worker runs the engine that this stream began with; 4 waits: all workers are full;")
		w.session(5, request{Kind: migration.Planned, Need: need{Only: "z"}})
		w.expect("5 waits: z is not connected;")
		if _, n := w.Workers(); n != 3 {
			t.Errorf("%d without a worker wait, beside a planned handover", n)
		}
	})
}

func TestAskingAgain(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 1)
		one := w.ask(1, migration.Placement)
		w.Queue(&one.Request)
		w.expect("1→a")
		one.release()
		one.release()
		w.expect("")
		if w.HasPlace(&one.Request, a.Link) {
			t.Error("a released request holds its place")
		}
		w.Queue(&one.Request)
		w.expect("1→a")
		if !w.HasPlace(&one.Request, a.Link) {
			t.Error("a granted request does not hold its place")
		}
		two := w.ask(2, migration.Placement)
		two.release()
		w.Queue(&two.Request)
		w.expect("2 waits: all workers are full; 2 waits: all workers are full;")
		one.release()
		w.expect("2→a")
	})
}

func TestAvoidedWorkerIsTheLastResort(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 2)
		if w.Alternative(need{Avoid: "a"}) {
			t.Error("a is an alternative to a")
		}
		w.session(1, request{Need: need{Avoid: "a"}})
		w.worker("b", 1)
		if !w.Alternative(need{Avoid: "a"}) {
			t.Error("b is no alternative to a")
		}
		w.session(2, request{Need: need{Avoid: "a"}})
		w.expect("1→a 2→b")
	})
}

// TestDeadWorkerIsEmptiedInOrder kills a worker with 1,000 sessions, while others have 300 places, and 40 may
// move at once.
func TestDeadWorkerIsEmptiedInOrder(t *testing.T) {
	const sessions, places, atOnce = 1000, 300, 40
	inWorld(t, placement.Config{MaxHandovers: atOnce}, func(w *world) {
		dying := w.worker("dying", sessions)
		for id := uint64(1); id <= sessions; id++ {
			w.ask(id, migration.Placement)
		}
		w.worker("b", places/2)
		w.worker("c", places/2)
		w.said()
		dying.Lose(link.CauseTether)
		var moved []uint64
		collect := func() int {
			before := len(moved)
			for word := range strings.FieldsSeq(w.said()) {
				var id uint64
				if n, _ := fmt.Sscanf(word, "%d→", &id); n == 1 && strings.Contains(word, "→") {
					moved = append(moved, id)
				}
			}
			return len(moved) - before
		}
		if n := collect(); n != atOnce {
			t.Fatalf("%d move at once, allowed are %d", n, atOnce)
		}
		for i := 0; i < len(moved) && len(moved) < places; i++ {
			w.sessions[moved[i]].handoverEnded()
			collect()
			if n := w.load("b").Incoming + w.load("c").Incoming; n > atOnce {
				t.Fatalf("%d handovers under way", n)
			}
		}
		if len(moved) != places || w.load("b").Sessions != places/2 || w.load("c").Sessions != places/2 {
			t.Fatalf("%d moved, %+v and %+v are on the others", len(moved), w.load("b"), w.load("c"))
		}
		if !slices.IsSorted(moved) || moved[0] != 1 {
			t.Fatalf("moved out of order: %v", moved)
		}
		for _, id := range moved {
			w.sessions[id].handoverEnded()
		}
		w.worker("d", sessions)
		for len(moved) < sessions {
			if collect() == 0 {
				t.Fatalf("only %d of %d moved in the end", len(moved), sessions)
			}
			for _, id := range moved {
				w.sessions[id].handoverEnded()
			}
		}
		if !slices.IsSorted(moved) || w.load("d").Sessions != sessions-places {
			t.Fatalf("the rest moved out of order, or not to d (%+v)", w.load("d"))
		}
	})
}

func TestWorkerDiesBetweenGrantAndUse(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1}, func(w *world) {
		a := w.worker("a", 1)
		w.ask(1, migration.Failover)
		a.Lose(link.CauseTether)
		w.ask(2, migration.Failover)
		w.worker("b", 2)
		w.expect("1→a 1 waits: no worker is connected; 2 waits: no worker is connected; 1→b")
		w.sessions[1].handoverEnded()
		w.expect("2→b")
	})
}

// TestTargetsDieInARow must not lose the place among the handovers under way with them.
func TestTargetsDieInARow(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 1}, func(w *world) {
		a, b := w.worker("a", 1), w.worker("b", 1)
		w.ask(1, migration.Placement)
		a.Lose(link.CauseTether)
		b.Lose(link.CauseTether)
		w.worker("c", 1)
		w.expect("1→a 1→b 1 waits: no worker is connected; 1→c")
	})
}

// TestWorkerReportsFailure takes its streams elsewhere, and gives it none until it is available.
func TestWorkerReportsFailure(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 2)
		w.ask(1, migration.Placement)
		w.ask(2, migration.Placement).stays = true
		w.status(a, &wirepb.WorkerStatus{Failed: true})
		w.expect("1→a 2→a 1 waits: no worker is available;")
		w.available(a, true)
		w.expect("1→a")
		if load := w.load("a"); load.Sessions != 1 || load.Incoming != 1 {
			t.Errorf("%+v", load)
		}
	})
}

// TestReleasedWhileItIsLost takes a request back while its session is being told of the loss: it is not queued again.
func TestReleasedWhileItIsLost(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 1)
		s := &leaver{world: w}
		s.Session = s
		w.Queue(&s.Request)
		a.Lose(link.CauseTether)
		w.worker("b", 1)
		if _, waiting := w.Workers(); s.granted != 1 || waiting != 0 {
			t.Errorf("granted %d times, %d wait", s.granted, waiting)
		}
	})
}

// leaver is a session that ends in the moment in which its worker is lost.
type leaver struct {
	placement.Request

	world   *world
	granted int
}

func (s *leaver) Granted(*request, *link.Link) { s.granted++ }
func (s *leaver) Waiting(*request, string)     {}
func (s *leaver) Lost(r *request, _ *link.Link, _ link.Cause) bool {
	s.world.Release(r)
	return true
}

// TestDeclined lets a worker that declined a stream alone for a moment.
func TestDeclined(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 2)
		w.Declined(a.Link)
		w.ask(1, migration.Placement)
		w.expect("1 waits: all workers are full;")
		w.wait(placement.DeclinedFor / 2)
		w.Declined(a.Link) // again: it begins anew
		w.wait(placement.DeclinedFor * 3 / 4)
		w.expect("")
		w.wait(placement.DeclinedFor / 2)
		w.expect("1→a")
	})
}

func TestNothingNewGoesToADrainedWorker(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 9)
		w.worker("b", 1)
		w.ask(1, migration.Placement)
		if err := w.fleet.Drain("a", false); err != nil {
			t.Fatal(err)
		}
		w.ask(2, migration.Placement)
		w.expect("1→a 2→b")
		w.ask(3, migration.Placement)
		w.ask(4, migration.Failover)
		w.session(5, request{Kind: migration.Planned, Need: need{Avoid: "x", Only: "a"}})
		w.expect("3 waits: all workers are full; 4 waits: all workers are full; 5 waits: no worker is available;")
		if w.Alternative(need{Avoid: "b"}) {
			t.Error("a drained worker is an alternative")
		}
		if load := w.load("a"); load.Sessions != 1 {
			t.Errorf("%+v on a, which loses none by being drained", load)
		}
		if err := w.fleet.Undrain("a"); err != nil {
			t.Fatal(err)
		}
		w.expect("3→a 4→a 5→a")
	})
}

// TestDrainedLabelStaysDrained has the drained worker's link come up anew.
func TestDrainedLabelStaysDrained(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 9)
		if err := w.fleet.Drain("a", true); err != nil {
			t.Fatal(err)
		}
		a.Lose(link.CauseTether)
		w.worker("a", 9)
		w.ask(1, migration.Placement)
		w.expect("1 waits: no worker is available;")
	})
}

func TestBlockers(t *testing.T) {
	inWorld(t, placement.Config{MaxHandovers: 10, MaxPerTarget: 1}, func(w *world) {
		says := func(want string) {
			t.Helper()
			if got := w.Blocker(need{Fingerprint: "x"}, "a"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		says("no worker is connected")
		w.worker("a", 9, runs("x"))
		says("no other connected worker runs the engine that this stream began with")
		w.worker("y", 9, runs("y"))
		says("no other connected worker runs the engine that this stream began with")
		b := w.worker("b", 2, runs("x"))
		says("")
		w.available(b, false)
		says("no worker is available")
		w.available(b, true)
		if err := w.fleet.Drain("b", false); err != nil {
			t.Fatal(err)
		}
		says("no worker is available")
		if err := w.fleet.Undrain("b"); err != nil {
			t.Fatal(err)
		}
		one := w.session(1, request{Kind: migration.Failover, Need: need{Fingerprint: "x", Avoid: "a"}})
		says("other streams are being moved first")
		one.handoverEnded()
		says("")
		w.session(2, request{Need: need{Fingerprint: "x", Avoid: "a"}})
		says("all workers are full")
	})
}

func TestCheck(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 1, runs("x"))
		w.worker("b", 1, runs("x"))
		w.worker("d", 1, runs("y"))
		if err := w.fleet.Drain("b", false); err != nil {
			t.Fatal(err)
		}
		for label, want := range map[string]wire.Code{"a": "", "b": wire.CodeConflict, "d": wire.CodeInvalid, "e": wire.CodeNotFound} {
			var got wire.Code
			if err := w.Check(label, need{Fingerprint: "x"}); err != nil {
				got = wire.AsError(err, wire.CodeInternal).Code
			}
			if got != want {
				t.Errorf("%s: %q, want %q", label, got, want)
			}
		}
		if err := w.Check("d", need{Fingerprint: ""}); err != nil {
			t.Errorf("a stream that has not begun can go anywhere: %v", err)
		}
	})
}

func TestOn(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 9, func(p *link.Peer) { p.Instance = "1" })
		w.session(1, request{Started: 2})
		w.session(2, request{Started: 2, Priority: 1})
		w.session(3, request{Started: 1})
		on := func(label, instance, want string) {
			t.Helper()
			got := ""
			for _, s := range w.On(label, instance) {
				got += fmt.Sprint(s)
			}
			if got != want {
				t.Errorf("on %s %s: %s, want %s", label, instance, got, want)
			}
		}
		on("a", "", "321")
		on("a", "1", "321")
		on("a", "2", "")
		on("b", "", "")
		w.sessions[2].release()
		on("a", "1", "31")
		a.Lose(link.CauseTether)
		on("a", "", "")
	})
}

// TestPeer keeps checkpoints where they are of use: not on the worker itself, nor on one that leaves.
func TestPeer(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		stateful := func(p *link.Peer) { p.Models[0].Stateful = true }
		w.worker("a", 9, stateful)
		w.worker("stateless", 9)
		b := w.worker("b", 9, stateful)
		if got := w.Peer("a"); got != b.Link {
			t.Errorf("got %+v", got)
		}
		if err := w.fleet.Drain("b", false); err != nil {
			t.Fatal(err)
		}
		if got := w.Peer("a"); got != nil {
			t.Errorf("got %s, which is drained", got.Worker())
		}
		if err := w.fleet.Undrain("b"); err != nil {
			t.Fatal(err)
		}
		w.available(b, false)
		if got := w.Peer("a"); got != nil {
			t.Errorf("got %s, which takes nothing", got.Worker())
		}
	})
}

// TestOtherDirectorsCount prefers the worker that has room by its own report, and uses the other one when there is no
// such.
func TestOtherDirectorsCount(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 3)
		w.worker("b", 1)
		w.ask(1, migration.Placement)
		w.Reported(a.Link, 3) // one of which is ours
		w.ask(2, migration.Placement)
		w.ask(3, migration.Placement)
		w.expect("1→a 2→b 3→a")
	})
}

// TestOtherModels: a worker whose models change keeps its streams, and these their places.
func TestOtherModels(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		peer := link.Peer{Label: "a", Instance: "1", Capacity: 9, Version: 2}
		have := func(models ...routing.Model) {
			t.Helper()
			peer.Models = models
			if _, err := w.fleet.Register(peer); err != nil {
				t.Fatal(err)
			}
		}
		peer.Models = []routing.Model{{Name: "m", Fingerprint: "x", Capacity: 1}}
		if _, err := w.fleet.Connect(peer); err != nil {
			t.Fatal(err)
		}
		one := w.session(1, request{Need: need{Model: "m"}})
		two := w.session(2, request{Need: need{Model: "m"}})
		w.session(3, request{Need: need{Model: "n"}})
		w.said()
		have(routing.Model{Name: "n"}, routing.Model{Name: "m", Fingerprint: "y", Capacity: 1})
		w.expect("3→a")
		w.session(4, request{Need: need{Model: "m", Fingerprint: "x"}})
		w.said()
		one.release()
		w.expect("2→a")
		have(routing.Model{Name: "n", Capacity: 1})
		w.session(5, request{Need: need{Model: "n"}})
		w.said()
		if s := w.load("a"); s.Sessions != 2 || len(s.Models) != 1 {
			t.Errorf("got %+v", s)
		}
		have(routing.Model{Name: "m", Fingerprint: "x", Capacity: 2}, routing.Model{Name: "n", Capacity: 1})
		w.expect("4→a")
		w.session(6, request{Need: need{Model: "m"}})
		if got := w.said(); strings.Contains(got, "→") {
			t.Errorf("2 has its place still, and %s", got)
		}
		two.release()
		w.expect("6→a")
	})
}
