package pool

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// world is a pool with scripted workers, and a log of what the sessions were told.
type world struct {
	*Pool
	fleet    *fleettest.Fleet
	t        *testing.T
	sessions map[uint64]*fake

	// Guarded by mu: workers and timers write it too.
	mu      sync.Mutex
	log     []string
	closing bool // sessions hear nothing any more
}

func newWorld(t *testing.T, maxSwaps int) *world {
	f := fleettest.New(fleet.Deps{})
	w := &world{Pool: New(Config{MaxSwaps: maxSwaps, MaxPerTarget: maxSwaps}, f.Fleet), fleet: f, t: t, sessions: map[uint64]*fake{}}
	t.Cleanup(func() {
		w.mu.Lock()
		w.closing = true
		w.mu.Unlock()
		f.Close()
	})
	return w
}

func (w *world) link(label string, capacity int, fingerprint string) *worker {
	return w.connect(link.Peer{Label: label, Capacity: capacity, Fingerprint: fingerprint})
}

func (w *world) connect(peer link.Peer) *worker {
	w.t.Helper()
	one, err := w.fleet.Connect(peer)
	if err != nil {
		w.t.Fatal(err)
	}
	return &worker{Fake: one, world: w}
}

// worker is one of the workers.
type worker struct {
	*fleettest.Fake
	world *world
}

// lose loses the worker.
func (o *worker) lose() { o.Lose(link.CauseTether) }

// available has the worker say whether it takes sessions.
func (o *worker) available(yes bool) { o.report(&wirepb.WorkerStatus{Available: yes}) }

func (o *worker) report(m wire.Message) {
	o.world.t.Helper()
	if err := o.Report(m); err != nil {
		o.world.t.Fatal(err)
	}
}

// has is how many sessions the worker has, or is to get.
func (o *worker) has() int { return len(o.world.On(o.Worker(), "")) }

func (w *world) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.log, " ")
	w.log = nil
	return s
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// fake is a session that only remembers.
type fake struct {
	link.Sink

	world *world
	id    uint64
	wish  *Waiter
	link  *link.Link
	epoch uint64
}

func (w *world) session(id uint64) *fake {
	f := &fake{world: w, id: id}
	w.sessions[id] = f
	return f
}

func (f *fake) ask(kind migration.Kind) *fake { return f.want(Waiter{Kind: kind}) }

// want asks for what w says beyond who asks.
func (f *fake) want(w Waiter) *fake {
	f.epoch++
	w.Session, w.ID, w.Epoch = f, f.id, f.epoch
	f.wish = NewWaiter(w)
	f.world.Acquire(f.wish)
	return f
}

func (f *fake) Refused(*wirepb.Refused) {}

func (f *fake) Granted(w *Waiter, l *link.Link) {
	if w != f.wish {
		f.world.t.Errorf("session %d was granted a wish that it does not have", f.id)
	}
	f.link = l
	f.world.note("%d→%s", f.id, l.Worker())
}

func (f *fake) Waiting(_ *Waiter, reason string) {
	f.world.note("%d waits: %s;", f.id, reason)
}

func (f *fake) Lost(epoch uint64, _ link.Cause) *Waiter {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if epoch != f.epoch || f.world.closing {
		return nil
	}
	f.epoch++
	f.link = nil
	f.wish = NewWaiter(Waiter{Session: f, ID: f.id, Epoch: f.epoch, Kind: migration.Failover})
	return f.wish
}

func TestRoundRobinOverRoom(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 2, "")
	w.link("b", 1, "")
	w.link("c", 2, "").available(false)
	for id := uint64(1); id <= 4; id++ {
		w.session(id).ask(migration.Placement)
	}
	if got, want := w.said(), "1→a 2→b 3→a 4 waits: all workers are full;"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	w.Release(w.sessions[2].wish)
	if got, want := w.said(), "4→b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReasonsForWaiting(t *testing.T) {
	w := newWorld(t, 10)
	w.session(1).ask(migration.Placement)
	w.session(1).ask(migration.Placement) // the same session's second try does not matter here
	if got, want := w.said(), "1 waits: no worker is connected; 1 waits: no worker is connected;"; got != want {
		t.Errorf("got %s", got)
	}
	l := w.link("a", 1, "x")
	w.said()
	l.available(false)
	w.session(2).ask(migration.Placement)
	if got, want := w.said(), "2 waits: no worker is available;"; got != want {
		t.Errorf("got %s", got)
	}
	l.available(true)
	w.said()
	w.session(3).want(Waiter{Fingerprint: "y"})
	if got, want := w.said(), "3 waits: no connected worker runs the engine that this stream began with;"; !strings.Contains(got, want) {
		t.Errorf("got %s", got)
	}
}

func TestAskingTwiceIsAskingOnce(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 2, "")
	f := w.session(1).ask(migration.Placement)
	w.Acquire(f.wish)
	if got := w.said(); got != "1→a" {
		t.Errorf("got %s", got)
	}
	w.Release(f.wish)
	w.Release(f.wish)
	w.Acquire(f.wish) // late: it was taken back
	if got := w.said(); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestStuckStreamPrefersAnotherWorker(t *testing.T) {
	w := newWorld(t, 10)
	w.link("a", 2, "")
	if w.Alternative("", "a") {
		t.Error("a is an alternative to a")
	}
	w.session(1).want(Waiter{Avoid: "a"})
	w.link("b", 1, "")
	if !w.Alternative("", "a") {
		t.Error("b is no alternative to a")
	}
	w.session(2).want(Waiter{Avoid: "a"})
	if got := w.said(); got != "1→a 2→b" {
		t.Errorf("got %s", got)
	}
}

// TestDeadWorkerIsEmptiedInOrder kills a worker with 1,000 sessions, while others have 300 places, and 40 may
// move at once.
func TestDeadWorkerIsEmptiedInOrder(t *testing.T) {
	const sessions, places, atOnce = 1000, 300, 40
	w := newWorld(t, atOnce)
	dying := w.link("dying", sessions, "")
	for id := uint64(1); id <= sessions; id++ {
		w.session(id).ask(migration.Placement)
	}
	b, c := w.link("b", places/2, ""), w.link("c", places/2, "")
	w.said()
	dying.lose()
	var moved []uint64
	collect := func() int {
		before := len(moved)
		for _, line := range w.log {
			var id uint64
			if n, _ := fmt.Sscanf(line, "%d→", &id); n == 1 && !strings.Contains(line, "waits") {
				moved = append(moved, id)
			}
		}
		w.log = nil
		return len(moved) - before
	}
	if n := collect(); n != atOnce {
		t.Fatalf("%d move at once, allowed are %d", n, atOnce)
	}
	for i := 0; i < len(moved) && len(moved) < places; i++ {
		w.Settle(w.sessions[moved[i]].wish)
		collect()
		if w.under[migration.Failover] > atOnce {
			t.Fatalf("%d swaps under way", w.under[migration.Failover])
		}
	}
	if len(moved) != places || b.has() != places/2 || c.has() != places/2 {
		t.Fatalf("%d moved, %d and %d are on the others", len(moved), b.has(), c.has())
	}
	if !slices.IsSorted(moved) || moved[0] != 1 {
		t.Fatalf("moved out of order: %v", moved)
	}
	for _, id := range moved {
		w.Settle(w.sessions[id].wish)
	}
	d := w.link("d", sessions, "")
	for len(moved) < sessions {
		if collect() == 0 {
			t.Fatalf("only %d of %d moved in the end", len(moved), sessions)
		}
		for _, id := range moved {
			w.Settle(w.sessions[id].wish)
		}
	}
	if !slices.IsSorted(moved) || d.has() != sessions-places {
		t.Fatalf("the rest moved out of order, or not to d (%d)", d.has())
	}
}

func TestWorkerDiesBetweenGrantAndUse(t *testing.T) {
	w := newWorld(t, 1)
	a := w.link("a", 1, "")
	w.session(1).ask(migration.Failover)
	a.lose()
	w.session(2).ask(migration.Failover)
	if w.under[migration.Failover] != 0 {
		t.Errorf("%d swaps are counted as under way, with nobody to go to", w.under[migration.Failover])
	}
	w.link("b", 2, "")
	if got, want := w.said(), "1→a 1 waits: no worker is connected; 2 waits: no worker is connected; 1→b"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	w.Settle(w.sessions[1].wish)
	if got := w.said(); got != "2→b" {
		t.Errorf("got %s", got)
	}
}

// TestTargetDiesBeforeAnybodyLooks loses a worker, and the next one before the session heard of its grant: the
// place among the swaps under way must not be lost with them.
func TestTargetDiesBeforeAnybodyLooks(t *testing.T) {
	w := newWorld(t, 1)
	a := w.link("a", 1, "")
	b := w.link("b", 1, "")
	w.session(1).ask(migration.Placement)
	a.lose()
	b.lose()
	if w.under[migration.Failover] != 0 {
		t.Errorf("%d swaps under way with no worker left", w.under[migration.Failover])
	}
	w.link("c", 1, "")
	if got := w.said(); got != "1→a 1→b 1 waits: no worker is connected; 1→c" {
		t.Errorf("got %s", got)
	}
}

// TestFailoversDoNotHoldUpNewStreams has one failover under way, which is all that may be, and another one waiting.
func TestFailoversDoNotHoldUpNewStreams(t *testing.T) {
	w := newWorld(t, 1)
	w.link("a", 10, "")
	w.session(1).ask(migration.Failover)
	w.session(2).ask(migration.Failover)
	w.session(3).ask(migration.Placement)
	if got := w.said(); got != "1→a 3→a" {
		t.Errorf("got %s", got)
	}
	w.Settle(w.sessions[1].wish)
	if got := w.said(); got != "2→a" {
		t.Errorf("got %s", got)
	}
}

// TestDeclined has a worker decline one session after another: for a moment it gets none.
func TestDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(fleet.Deps{})
		defer f.Close()
		w := &world{Pool: New(Config{MaxSwaps: 10, MaxPerTarget: 10}, f.Fleet), fleet: f, t: t, sessions: map[uint64]*fake{}}
		a := w.link("a", 9, "")
		w.session(1).ask(migration.Placement).link.Attach(&wirepb.Attach{Session: 1, Epoch: 1}, w.sessions[1])
		refused := &wirepb.Refused{Session: 1, Epoch: 1, Code: string(wire.CodeCapacity)}
		a.report(refused)
		w.session(2).ask(migration.Placement)
		w.expect("1→a 2 waits: all workers are full;")
		time.Sleep(cooldown - 1)
		w.sessions[1].link.Attach(&wirepb.Attach{Session: 1, Epoch: 1}, w.sessions[1])
		a.report(refused) // once more: it starts over
		time.Sleep(cooldown - 1)
		w.expect("")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		w.expect("2→a")
		a.report(&wirepb.Refused{Session: 7, Epoch: 1, Code: string(wire.CodeCapacity)}) // which it was not given
		w.session(3).ask(migration.Placement)
		w.expect("3→a")
	})
}
