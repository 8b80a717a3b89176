package pool

import (
	"errors"
	"fmt"
	"testing"

	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// code is the code of an error, or nothing.
func code(err error) wire.Code {
	if e := new(wire.Error); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (w *world) drain(label string, force bool, want wire.Code) {
	w.t.Helper()
	if err := w.Drain(label, force); code(err) != want || (err == nil) != (want == "") {
		w.t.Errorf("draining %s: %v, want %q", label, err, want)
	}
}

func (w *world) undrain(label string, want wire.Code) {
	w.t.Helper()
	if err := w.Undrain(label); code(err) != want || (err == nil) != (want == "") {
		w.t.Errorf("undraining %s: %v, want %q", label, err, want)
	}
}

func TestNothingNewGoesToADrainedWorker(t *testing.T) {
	w := newWorld(t, 10)
	a := w.link("a", 9, "")
	w.link("b", 1, "")
	w.session(1).ask(migration.Placement)
	w.drain("a", false, "")
	w.session(2).ask(migration.Placement)
	w.expect("1→a 2→b")
	w.session(3).ask(migration.Placement)
	w.session(4).ask(migration.Failover)
	w.session(5).want(Waiter{Kind: migration.Planned, Avoid: "x", Want: "a"})
	w.expect("3 waits: all workers are full; 4 waits: all workers are full; 5 waits: no worker is available;")
	if w.Alternative("", "b") {
		t.Error("a drained worker is an alternative")
	}
	if len(a.attempts) != 1 {
		t.Errorf("%d sessions on a, which loses none by being drained", len(a.attempts))
	}
	w.undrain("a", "")
	w.expect("3→a 4→a 5→a")
}

func TestTheLastWorkerIsNotDrained(t *testing.T) {
	w := newWorld(t, 10)
	w.drain("a", true, wire.CodeNotFound)
	w.link("a", 1, "")
	w.drain("a", false, wire.CodeNoWorker)
	b := w.link("b", 1, "")
	b.ready = false // there, but takes nothing
	w.drain("a", false, wire.CodeNoWorker)
	b.ready = true
	w.drain("a", false, "")
	w.drain("a", false, "") // twice is no mistake
	w.drain("b", false, wire.CodeNoWorker)
	w.drain("b", true, "")
	w.session(1).ask(migration.Placement)
	w.expect("1 waits: no worker is available;")
	w.undrain("x", wire.CodeNotFound)
	w.undrain("b", "")
	w.expect("1→b")
	w.undrain("b", wire.CodeInvalid)
}

// TestDrainedLabelStaysDrained has the drained worker's process replaced: its label is out of use, not its process.
func TestDrainedLabelStaysDrained(t *testing.T) {
	inPool(t, func(t *testing.T, p *Pool) {
		first := register(t, p, "1")
		if err := p.Drain("a", true); err != nil {
			t.Fatal(err)
		}
		first.Close()
		register(t, p, "2")
		if workers, _ := p.Workers(); len(workers) != 1 || workers[0].Instance != "2" || !workers[0].Draining {
			t.Errorf("after it registered anew: %+v", workers)
		}
		if err := p.Undrain("a"); err != nil {
			t.Error(err)
		}
		if workers, _ := p.Workers(); workers[0].Draining {
			t.Error("still drained")
		}
	})
}

// TestUndrainWhoIsGone puts a label back into use of which there is no worker.
func TestUndrainWhoIsGone(t *testing.T) {
	w := newWorld(t, 10)
	a := w.link("a", 1, "")
	w.drain("a", true, "")
	w.lose(a)
	delete(w.workers, "a")
	w.drain("a", true, "")
	w.undrain("a", "")
	w.undrain("a", wire.CodeNotFound)
}

func TestObstacles(t *testing.T) {
	w := newWorld(t, 10)
	w.cfg.MaxPerTarget = 1
	says := func(want string) {
		t.Helper()
		if got := w.Obstacle("x", "a"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	says("no worker is connected")
	w.link("a", 9, "x")
	says("no other connected worker runs the engine that this stream began with")
	w.link("y", 9, "y")
	says("no other connected worker runs the engine that this stream began with")
	b := w.link("b", 2, "x")
	says("")
	b.ready = false
	says("no worker is available")
	b.ready = true
	w.drain("b", false, "")
	says("no worker is available")
	w.undrain("b", "")
	w.session(1).want(Waiter{Kind: migration.Failover, Fingerprint: "x", Avoid: "a"})
	says("other streams are being moved first")
	w.Settle(w.sessions[1].wish)
	says("")
	w.session(2).want(Waiter{Fingerprint: "x", Avoid: "a"})
	says("all workers are full")
}

func TestCheck(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 1, "x")
	w.link("b", 1, "x")
	w.drain("b", false, "")
	gone := w.link("c", 1, "x")
	w.lose(gone)
	w.link("d", 1, "y")
	for label, want := range map[string]wire.Code{
		"a": "", "b": wire.CodeConflict, "c": wire.CodeConflict, "d": wire.CodeInvalid, "e": wire.CodeNotFound,
	} {
		if err := w.Check(label, "x"); code(err) != want || (err == nil) != (want == "") {
			t.Errorf("%s: %v, want %q", label, err, want)
		}
	}
	if err := w.Check("d", ""); err != nil {
		t.Errorf("a stream that has not begun can go anywhere: %v", err)
	}
}

func TestOn(t *testing.T) {
	w := newWorld(t, 10)
	a := w.link("a", 9, "")
	a.worker.Instance = "1"
	w.session(1).want(Waiter{Started: 2})
	w.session(2).want(Waiter{Started: 2, Priority: 1})
	w.session(3).want(Waiter{Started: 1})
	on := func(label, instance, want string) {
		t.Helper()
		got := ""
		for _, s := range w.On(label, instance) {
			got += fmt.Sprint(s.(*fake).id)
		}
		if got != want {
			t.Errorf("on %s %s: %s, want %s", label, instance, got, want)
		}
	}
	on("a", "", "321")
	on("a", "1", "321")
	on("a", "2", "")
	on("b", "", "")
	w.Release(w.sessions[2].wish)
	on("a", "1", "31")
	w.lose(a)
	on("a", "", "")
}

// TestWorkerAsksToBeEmptied says so on the link, with and without somebody to hear it.
func TestWorkerAsksToBeEmptied(t *testing.T) {
	w := newWorld(t, 10)
	a := w.link("a", 9, "")
	a.worker.Instance = "1"
	a.status(&wirepb.WorkerStatus{Draining: true})
	var asked []string
	w.deps.Draining = func(label, instance string) { asked = append(asked, label+"/"+instance) }
	a.status(&wirepb.WorkerStatus{})
	a.status(&wirepb.WorkerStatus{Available: true})
	a.status(&wirepb.WorkerStatus{Failed: true, Draining: true}) // its sessions are gone already
	if len(asked) != 0 {
		t.Errorf("%v asked", asked)
	}
	w.session(1).ask(migration.Placement)
	w.said()
	a.status(&wirepb.WorkerStatus{Draining: true, Reason: "shutting down"})
	if len(asked) != 1 || asked[0] != "a/1" {
		t.Errorf("%v asked", asked)
	}
	if workers, _ := w.Workers(); workers[0].Draining || workers[0].Available {
		t.Errorf("its label is drained, or it takes sessions: %+v", workers[0])
	}
	w.link("a", 9, "") // the next one under this label
	w.expect("1→a")
}

// TestPeer keeps checkpoints where they are of use: not on the worker itself, nor on one that leaves.
func TestPeer(t *testing.T) {
	w := newWorld(t, 10)
	a, _, b := w.link("a", 9, ""), w.link("stateless", 9, ""), w.link("b", 9, "")
	a.worker.Stateful, b.worker.Stateful = true, true
	if got := w.Peer("a"); got != b {
		t.Errorf("got %+v", got)
	}
	w.drain("b", false, "")
	if got := w.Peer("a"); got != nil {
		t.Errorf("got %s, which is drained", got.Worker())
	}
	w.undrain("b", "")
	b.ready = false
	if got := w.Peer("a"); got != nil {
		t.Errorf("got %s, which takes nothing", got.Worker())
	}
}

// TestHold asks a worker to keep something. Who has asked is forgotten with the answer, or when it is not wanted any more.
func TestHold(t *testing.T) {
	w := newWorld(t, 10)
	a := w.link("a", 9, "")
	hold := &wirepb.Hold{From: &wirepb.Fetch{Session: 1}}
	s := &holder{}
	a.held(&wirepb.Held{Session: 1})
	a.Hold(s, hold)
	a.held(&wirepb.Held{Session: 2})
	a.held(&wirepb.Held{Session: 1})
	a.held(&wirepb.Held{Session: 1})
	a.Hold(s, hold)
	a.Discard(1)
	a.held(&wirepb.Held{Session: 1})
	if s.answers != 1 || len(a.holding) != 0 {
		t.Errorf("%d answers, %d are waited for", s.answers, len(a.holding))
	}
}

// holder is a session that counts answers.
type holder struct {
	Placed

	answers int
}

func (h *holder) Held(*wirepb.Held) { h.answers++ }
