package placement_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// world is a placement with scripted workers, in a bubble, and a log of what the sessions were told.
type world struct {
	testing.TB
	*placement.Placement
	fleet *fleettest.Fleet

	mu       sync.Mutex
	log      []string
	sessions map[uint64]*session
}

func inWorld(t *testing.T, cfg placement.Config, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cfg)
		defer w.close()
		test(w)
	})
}

func newWorld(t testing.TB, cfg placement.Config) *world {
	if cfg.MaxPerTarget == 0 {
		cfg.MaxPerTarget = cfg.MaxHandovers
	}
	router, err := routing.New(routing.RoundRobin, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, fleet: fleettest.New(fleet.Deps{}), sessions: map[uint64]*session{}}
	w.Placement = placement.New(cfg, router, rand.NewPCG(1, 1), w.fleet.Fleet, zap.NewNop())
	return w
}

func (w *world) close() {
	w.fleet.Close()
	w.Close()
}

// worker brings one up, changed as the test says.
func (w *world) worker(label string, capacity int, change ...func(*link.Peer)) *fleettest.Fake {
	w.Helper()
	peer := link.Peer{Label: label, Capacity: capacity, Version: 2, Models: []routing.Model{{Name: "model"}}}
	for _, do := range change {
		do(&peer)
	}
	one, err := w.fleet.Connect(peer)
	if err != nil {
		w.Fatal(err)
	}
	return one
}

func runs(fingerprint string) func(*link.Peer) {
	return func(p *link.Peer) { p.Models[0].Fingerprint = fingerprint }
}

func (w *world) status(one *fleettest.Fake, m *wirepb.WorkerStatus) {
	w.Helper()
	if err := one.Report(m); err != nil {
		w.Fatal(err)
	}
}

func (w *world) available(one *fleettest.Fake, yes bool) {
	w.Helper()
	w.status(one, &wirepb.WorkerStatus{Available: yes})
}

// said returns what the sessions were told since the last call.
func (w *world) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.log, " ")
	w.log = nil
	return s
}

func (w *world) expect(want string) {
	w.Helper()
	if got := w.said(); got != want {
		w.Errorf("got  %s\nwant %s", got, want)
	}
}

// session is one that only remembers.
type session struct {
	placement.Request

	world *world
	at    *link.Link // where it has its place
	stays bool       // it does not want another place when it loses one
}

// session wants a place, as the request says.
func (w *world) session(id uint64, r placement.Request) *session {
	s := &session{Request: r, world: w}
	s.ID, s.Session = id, s
	w.sessions[id] = s
	w.Queue(&s.Request)
	return s
}

func (w *world) ask(id uint64, kind migration.Kind) *session {
	return w.session(id, placement.Request{Kind: kind})
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (s *session) Granted(r *placement.Request, l *link.Link) {
	if r != &s.Request {
		s.world.Errorf("session %d was granted another one's request", s.ID)
	}
	s.at = l
	s.world.note("%d→%s", s.ID, l.Worker())
}

func (s *session) Waiting(_ *placement.Request, reason string) {
	s.world.note("%d waits: %s;", s.ID, reason)
}

func (s *session) Lost(_ *placement.Request, l *link.Link, _ link.Cause) bool {
	if l != s.at {
		s.world.Errorf("session %d, which is at %v, lost %s", s.ID, s.at, l.Worker())
	}
	s.at = nil
	s.Kind = migration.Failover
	s.Need.Avoid, s.Need.Only = "", ""
	return !s.stays
}

func (s *session) release()       { s.world.Release(&s.Request) }
func (s *session) handoverEnded() { s.world.HandoverEnded(&s.Request) }

// load returns what is known of a worker.
func (w *world) load(label string) fleet.Snapshot {
	w.Helper()
	workers, _ := w.Workers()
	i := slices.IndexFunc(workers, func(s fleet.Snapshot) bool { return s.Worker == label })
	if i < 0 {
		w.Fatalf("no worker %s among %+v", label, workers)
	}
	return workers[i]
}

// empty fails unless no handover is under way, and nobody waits.
func (w *world) empty() {
	w.Helper()
	workers, waiting := w.Workers()
	for _, one := range workers {
		if one.Incoming != 0 {
			w.Errorf("%+v", one)
		}
	}
	if waiting != 0 {
		w.Errorf("%d wait", waiting)
	}
}

// wait lets time pass.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
