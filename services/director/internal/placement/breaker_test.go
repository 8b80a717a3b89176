package placement_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/shared/migration"
)

// report says how the session's attempt went.
func (s *session) report(ok bool) { s.world.Report(&s.Request, s.at, ok) }

// fails has the session's attempt fail, and the session ask for another place.
func (s *session) fails() {
	s.report(false)
	s.release()
	s.at = nil
	s.world.Queue(&s.Request)
}

// prove has a stream served by a worker, which has room for it and is the only one asked for.
func (w *world) prove(labels ...string) {
	w.Helper()
	for _, label := range labels {
		s := w.session(1000, request{Need: need{Only: label}})
		s.report(true)
		s.release()
	}
	w.said()
}

// TestProbation gives a new worker two streams while another one, which has proved itself, has room; once one of them
// was served, it is like every other.
func TestProbation(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 100)
		b := w.worker("b", 100)
		w.prove("a")
		for id := uint64(1); id <= 6; id++ {
			w.ask(id, migration.Placement)
		}
		w.expect("1→b 2→a 3→b 4→a 5→a 6→a")
		if w.Proven(b.Link) {
			t.Error("proven by having been asked")
		}
		w.sessions[1].report(true)
		if !w.Proven(b.Link) {
			t.Error("not proven")
		}
		w.ask(7, migration.Placement)
		w.ask(8, migration.Placement)
		w.expect("7→b 8→a")
	})
}

// TestSilenceIsSuspicious sends no more to a worker that has served well before, once eight streams in a row have no
// answer yet and another one has room; until one has.
func TestSilenceIsSuspicious(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 100)
		w.worker("b", 100)
		w.prove("a", "b")
		for id := uint64(1); id <= 16; id++ {
			if s := w.ask(id, migration.Placement); s.at.Worker() == "b" {
				s.report(true)
			}
		}
		w.said()
		for id := uint64(17); id <= 20; id++ {
			w.ask(id, migration.Placement)
		}
		w.expect("17→b 18→b 19→b 20→b")
		w.sessions[1].report(true)
		w.ask(21, migration.Placement)
		w.ask(22, migration.Placement)
		w.expect("21→a 22→b")
	})
}

// TestProbationIsNoLimit uses a new worker that is on trial where there is no other.
func TestProbationIsNoLimit(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 1)
		w.worker("b", 100)
		w.prove("a")
		for id := uint64(1); id <= 5; id++ {
			w.ask(id, migration.Placement)
		}
		w.expect("1→b 2→a 3→b 4→b 5→b")
	})
}

// TestCooldown rests a worker that fails, for longer each time, and tries it with one stream at a time.
func TestCooldown(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 100)
		b := w.worker("b", 100)
		w.prove("a")
		cooling := func() bool { return w.load("b").Cooldown }
		next := uint64(0)
		ask := func(want string) *session {
			t.Helper()
			next++
			s := w.ask(next, migration.Placement)
			w.expect(fmt.Sprintf("%d→%s", next, want))
			if want == "a" {
				s.report(true)
			}
			return s
		}
		ask("b").fails()
		w.expect("1→a") // who had a bad try goes to one that has proved itself
		ask("a")
		ask("a")
		var last time.Duration
		for round := range 5 {
			if !cooling() {
				t.Fatal("no cooldown after a failure")
			}
			began := time.Now()
			for cooling() {
				w.wait(10 * time.Millisecond)
			}
			took := time.Since(began)
			if least, most := 500*time.Millisecond<<round, time.Second<<round; took < least || took > most+10*time.Millisecond {
				t.Errorf("cooldown number %d took %v, expected %v to %v", round+1, took, least, most)
			}
			last = took
			probe := ask("b")
			ask("a") // one at a time
			ask("a")
			probe.fails()
			w.expect(fmt.Sprintf("%d→a", probe.ID))
		}
		if last < 8*time.Second {
			t.Errorf("the last cooldown took %v", last)
		}
		for cooling() {
			w.wait(10 * time.Millisecond)
		}
		ask("b").report(true)
		ask("a")
		ask("b")
		ask("a")
		ask("b")
		w.sessions[next].fails() // it has proved itself: one failure is tolerated
		if cooling() || !w.Proven(b.Link) {
			t.Error("in cooldown after one failure")
		}
	})
}

// TestOneStreamsFault rests no worker that has proved itself for a stream that fails wherever it is.
func TestOneStreamsFault(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		a := w.worker("a", 100)
		w.prove("a")
		w.ask(1, migration.Placement)
		for range 10 {
			w.sessions[1].fails()
		}
		if w.load("a").Cooldown {
			t.Error("one stream's fault")
		}
		w.ask(2, migration.Placement).fails()
		w.ask(3, migration.Placement).fails()
		if !w.load("a").Cooldown || w.Proven(a.Link) {
			t.Error("three streams in a row are none's fault")
		}
	})
}

// TestAllInCooldown refuses nobody: the least bad one is used, and whoever serves something is trusted again at once.
func TestAllInCooldown(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 100)
		w.worker("b", 100)
		w.ask(1, migration.Placement).fails()
		w.sessions[1].fails()
		w.sessions[1].fails()
		w.expect("1→a 1→b 1→a 1→b")
		w.ask(2, migration.Placement)
		w.expect("2→b") // it failed once, the other one twice
		w.sessions[2].report(true)
		if w.load("b").Cooldown {
			t.Error("it has served something")
		}
	})
}

// TestCrashLoop remembers a worker that dies under what it is given when it comes back.
func TestCrashLoop(t *testing.T) {
	inWorld(t, usual, func(w *world) {
		w.worker("a", 100)
		b := w.worker("b", 100)
		w.prove("a")
		w.ask(1, migration.Placement)
		b.Lose(link.CauseTether)
		w.expect("1→b 1→a")
		b = w.worker("b", 100)
		w.ask(2, migration.Placement)
		w.expect("2→a")
		w.wait(time.Second)
		w.ask(3, migration.Placement)
		w.ask(4, migration.Placement)
		w.expect("3→b 4→a")
		w.sessions[3].report(true)
		b.Lose(link.CauseTether) // one that has served is not suspected
		w.worker("b", 100)
		w.said()
		w.ask(5, migration.Placement)
		w.ask(6, migration.Placement)
		if got := w.said(); !strings.Contains(got, "→b") {
			t.Errorf("got %s", got)
		}
	})
}

// patient is a stream that tries workers until one serves it.
type patient struct {
	placement.Request

	world *world
	sick  map[string]time.Duration // label of a worker that fails, and how long it takes to
	tries int
	bad   int           // of them that failed
	began time.Time     // when it asked
	took  time.Duration // until it was served
}

func (p *patient) Waiting(_ *placement.Request, reason string) {
	p.world.Errorf("%d waits: %s", p.ID, reason)
}

func (p *patient) Lost(*placement.Request, *link.Link, link.Cause) bool { return true }

func (p *patient) Granted(r *placement.Request, l *link.Link) {
	p.tries++
	after, sick := p.sick[l.Worker()]
	if !sick {
		after = 100 * time.Millisecond
	}
	p.world.TB.Helper()
	time.AfterFunc(after, func() {
		p.world.Report(r, l, !sick)
		if sick {
			p.bad++
			p.world.Release(r)
			p.world.Queue(r)
			return
		}
		p.took = time.Since(p.began)
		time.AfterFunc(2*time.Second, func() { p.world.Release(r) })
	})
}

// TestSickWorkers has ten sick workers beside two healthy ones with room, for five minutes: those that fail at once,
// and those that stay silent for half a minute; new ones, and those that have served well before. No stream has more
// than one bad try, but for the first ones after workers that had proved themselves began to fail: nobody could know.
func TestSickWorkers(t *testing.T) {
	const sick, streams, timeout = 10, 3000, 30 * time.Second
	for name, test := range map[string]struct {
		fails     time.Duration
		proved    bool
		mostly    int // streams that have a bad try at most
		surprised int // of them those that have more than one
	}{
		"engine errors":                {time.Millisecond, false, 160, 0},
		"silence":                      {timeout, false, 120, 0},
		"engine errors, served before": {time.Millisecond, true, 200, 5},
		"silence, served before":       {timeout, true, 250, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, placement.Config{MaxHandovers: 100}, func(w *world) {
				ill := map[string]time.Duration{}
				labels := []string{"healthy-1", "healthy-2"}
				for i := range sick {
					label := fmt.Sprintf("sick-%d", i)
					ill[label] = test.fails
					w.worker(label, 100)
					if test.proved {
						labels = append(labels, label)
					}
				}
				w.worker("healthy-1", 100)
				w.worker("healthy-2", 100)
				w.prove(labels...)
				var all []*patient
				for id := range uint64(streams) {
					p := &patient{world: w, sick: ill, began: time.Now()}
					p.ID, p.Started, p.Session = id+1, time.Now().Unix(), p
					all = append(all, p)
					w.Queue(&p.Request)
					w.wait(100 * time.Millisecond)
				}
				w.wait(2 * timeout)
				unlucky, surprised := 0, 0
				for _, p := range all {
					if p.took == 0 {
						t.Fatalf("stream %d was not served", p.ID)
					}
					if p.bad > 1 {
						surprised++
					} else if p.took > test.fails+200*time.Millisecond {
						t.Errorf("stream %d had %d bad tries, and was served after %v", p.ID, p.bad, p.took)
					}
					unlucky += min(p.bad, 1)
				}
				t.Logf("%d of %d streams had a bad try, %d several", unlucky, streams, surprised)
				if unlucky < sick || unlucky > test.mostly || surprised > test.surprised {
					t.Errorf("expected %d to %d, and %d", sick, test.mostly, test.surprised)
				}
			})
		})
	}
}

// TestSickWorkersFromTheBeginning has nobody who has proved himself yet: streams come one after the other, or all at
// once. Whoever has to choose again then may choose wrong again, but nobody is sent to a worker that is known to be
// sick while there is another.
func TestSickWorkersFromTheBeginning(t *testing.T) {
	const sick = 10
	for name, test := range map[string]struct {
		every time.Duration
		most  int // bad tries of all streams together
	}{
		"one by one": {50 * time.Millisecond, 3 * sick}, // each is probed twice within the two seconds,
		"at once":    {0, 39 + sick},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, placement.Config{MaxHandovers: 100}, func(w *world) {
				ill := map[string]time.Duration{}
				for i := range sick {
					label := fmt.Sprintf("sick-%d", i)
					ill[label] = time.Millisecond
					w.worker(label, 100)
				}
				w.worker("healthy-1", 100)
				w.worker("healthy-2", 100)
				var all []*patient
				for id := range uint64(39) {
					p := &patient{world: w, sick: ill, began: time.Now()}
					p.ID, p.Session = id+1, p
					all = append(all, p)
					w.Queue(&p.Request)
					w.wait(test.every)
				}
				w.wait(time.Minute)
				bad := 0
				for _, p := range all {
					if bad += p.bad; p.took == 0 || p.bad > sick {
						t.Errorf("stream %d had %d bad tries, and was served after %v", p.ID, p.bad, p.took)
					}
				}
				if bad > test.most {
					t.Errorf("%d bad tries", bad)
				}
			})
		})
	}
}
