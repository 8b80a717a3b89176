package session

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/placement/placementtest"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func newTestSession(stream Stream, window int) *Session {
	cfg := Config{
		MaxBytes: 1000, Window: window, WorkerWait: time.Minute, MaxWorkerDeaths: 3, MaxSwapsPerMinute: 30, AttachTimeout: 2 * time.Second, ClientStall: time.Minute, FirstTokenTimeout: 30 * time.Second,
		TokenTimeoutMin: time.Second, TokenFactor: 4,
	}
	s := New(Identity{ID: 7, ConnectionID: "conn-test", StreamID: 1}, &wirepb.Request{MaxTokens: 100}, stream, cfg, Deps{Clock: &clock.StallProof{}, Log: zap.NewNop()})
	s.flow.client.granted = uint64(window)
	s.wishFor("")
	return s
}

// made returns a token as a worker makes it.
func made(epoch, sequence uint64) wire.Token {
	return wire.Token{Session: 7, Epoch: epoch, Sequence: sequence, Text: []byte("x")}
}

// TestFence sends one token to a session in epoch 3 that has two tokens, or is moving to epoch 4.
func TestFence(t *testing.T) {
	streaming := func(f *flow) { f.epoch = 3 }
	moving := func(f *flow) { f.pending, f.begun = 4, true }
	for _, c := range []struct {
		name          string
		state         func(*flow)
		token         wire.Token
		journal, held int
		fenced        uint64
		event         any
	}{
		{"the next one", streaming, made(3, 3), 3, 0, 0, nil},
		{"older epoch, the next sequence", streaming, made(2, 3), 2, 0, 1, nil},
		{"older epoch, a sequence seen before", streaming, made(1, 1), 2, 0, 1, nil},
		{"newer epoch that nobody was given", streaming, made(9, 3), 2, 0, 1, nil},
		{"epoch zero", func(*flow) {}, made(0, 3), 2, 0, 1, nil},
		{"empty", streaming, wire.Token{Epoch: 3, Sequence: 3}, 2, 0, 0, workerLost{3, link.CauseProtocol}},
		{"more than was asked for", func(f *flow) { f.epoch = 3; f.client.granted = 200 }, made(3, 101), 2, 0, 0, workerLost{3, link.CauseProtocol}},
		{"repeated", streaming, made(3, 2), 2, 0, 0, workerLost{3, link.CauseProtocol}},
		{"one left out", streaming, made(3, 4), 2, 0, 0, workerLost{3, link.CauseProtocol}},
		{"beyond its credit", func(f *flow) { f.epoch = 3; f.client.granted = 2 }, made(3, 3), 2, 0, 0, workerLost{3, link.CauseProtocol}},
		{"fenced", func(*flow) {}, made(3, 3), 2, 0, 1, nil},
		{"of the target", moving, made(4, 3), 2, 1, 0, firstToken{4}},
		{"of the source, while moving", moving, made(3, 3), 2, 0, 1, nil},
		{"of the target, not the next one", moving, made(4, 4), 2, 0, 0, workerLost{4, link.CauseProtocol}},
		{"of the target, before it began", func(f *flow) { f.pending = 4 }, made(4, 3), 2, 0, 0, workerLost{4, link.CauseProtocol}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTestSession(&fakeStream{}, 10)
			for sequence := uint64(1); sequence <= 2; sequence++ {
				if err := s.flow.journal.Append(sequence, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			c.state(&s.flow)
			s.Token(c.token)
			f := &s.flow
			if int(f.journal.Len()) != c.journal || len(f.held) != c.held || f.fenced != c.fenced {
				t.Errorf("journal %d, held %d, fenced %d; want %d, %d, %d", f.journal.Len(), len(f.held), f.fenced, c.journal, c.held, c.fenced)
			}
			var event any
			if events := s.inbox.take(); len(events) > 0 {
				event = events[0]
			}
			if event != c.event {
				t.Errorf("event %#v, want %#v", event, c.event)
			}
			if _, broken := c.event.(workerLost); broken && (f.epoch != 0 || f.pending != 0) {
				t.Error("a worker that broke the protocol is not fenced")
			}
		})
	}
}

func TestLostFencesAtOnce(t *testing.T) {
	s := newTestSession(&fakeStream{}, 10)
	first := s.flow.wish
	epoch := first.Epoch
	s.flow.epoch = epoch
	if s.Lost(&placement.Request{}, nil, link.CauseTether) || s.flow.epoch != epoch {
		t.Fatal("the loss of a place that is not its own fenced the session")
	}
	if again := s.Lost(first.Request, nil, link.CauseTether); !again || s.flow.epoch != 0 || s.flow.wish.Epoch != epoch+1 || s.flow.wish.Request != first.Request {
		t.Fatalf("wish %+v after %+v, epoch %d", s.flow.wish, first, s.flow.epoch)
	}
	s.Token(made(epoch, 1))
	if s.flow.journal.Len() != 0 || s.flow.fenced != 1 {
		t.Error("a token of the lost worker was taken")
	}
}

func TestJournalFull(t *testing.T) {
	s := newTestSession(&fakeStream{}, 10)
	s.flow.epoch = 1
	s.Token(wire.Token{Epoch: 1, Sequence: 1, Text: make([]byte, 1000)})
	s.Token(made(1, 2))
	if events := s.inbox.take(); len(events) != 1 || events[0] != (full{1}) || s.flow.journal.Len() != 1 {
		t.Errorf("events %v, journal %d", events, s.flow.journal.Len())
	}
}

func TestCreditFollowsTheClient(t *testing.T) {
	stream := &fakeStream{}
	s := newTestSession(stream, 4)
	s.flow.epoch = 1
	var grants []uint64
	for sequence := uint64(1); sequence <= 8; sequence++ {
		s.Token(made(1, sequence))
		if g := s.Flush(nil); g != nil {
			grants = append(grants, g.GetSequence())
		}
	}
	if got := fmt.Sprint(grants); got != "[6 8 10 12]" {
		t.Errorf("granted %s", got)
	}
	stream.full = true
	synctest.Test(t, func(t *testing.T) {
		stream.unblock = make(chan struct{})
		for sequence := uint64(9); sequence <= 12; sequence++ {
			s.Token(made(1, sequence))
			if g := s.Flush(nil); g != nil {
				t.Errorf("granted %d to a worker whose client reads nothing", g.GetSequence())
			}
		}
		synctest.Wait()
		if s.flow.client.sent != 8 {
			t.Errorf("sent %d", s.flow.client.sent)
		}
		close(stream.unblock)
		s.writers.Wait()
		if g := s.Flush(nil); g.GetSequence() != 16 {
			t.Errorf("granted %d after the client read on", g.GetSequence())
		}
	})
	if n := stream.tokens(t); n != 12 {
		t.Errorf("the client got %d tokens", n)
	}
}

func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := &fakeStream{full: true, unblock: make(chan struct{})}
		s := newTestSession(stream, 4)
		s.flow.epoch = 1
		s.Token(made(1, 1))
		go s.deps.Clock.Run(t.Context(), func() {}) //nolint:errcheck // it ends with the bubble
		s.Flush(nil)
		time.Sleep(s.cfg.ClientStall - time.Second)
		if s.stalled() {
			t.Error("given up too early")
		}
		time.Sleep(2 * time.Second)
		if !s.stalled() {
			t.Error("never given up")
		}
		close(stream.unblock)
		s.writers.Wait()
		if s.stalled() {
			t.Error("given up although it read on")
		}
	})
}

func TestPace(t *testing.T) {
	cfg := Config{FirstTokenTimeout: 30 * time.Second, TokenTimeoutMin: time.Second, TokenFactor: 4}
	var p pace
	now := time.Duration(0)
	p.restart(now)
	step := func(d time.Duration) time.Duration {
		now += d
		p.token(now)
		return p.deadline(cfg)
	}
	if d := p.deadline(cfg); d != 30*time.Second {
		t.Errorf("before the first token: %v", d)
	}
	if d := step(10 * time.Second); d != 30*time.Second {
		t.Errorf("after one token nothing is known of the rhythm: %v", d)
	}
	for range 50 {
		step(500 * time.Millisecond)
	}
	if d := p.deadline(cfg); d < 2*time.Second || d > 2100*time.Millisecond {
		t.Errorf("steady at 500ms: %v", d)
	}
	if d := step(1500 * time.Millisecond); d < 3*time.Second {
		t.Errorf("one late token does not widen the deadline: %v", d)
	}
	for range 50 {
		step(time.Millisecond)
	}
	if d := p.deadline(cfg); d != time.Second {
		t.Errorf("a fast stream may be silent for %v, want the least", d)
	}
	p.restart(now)
	if d := p.deadline(cfg); d != 30*time.Second {
		t.Errorf("a new worker gets %v to its first token", d)
	}
}

// TestFlushOfAnotherLink flushes through a link that the session has left: the credit is not lost with it.
func TestFlushOfAnotherLink(t *testing.T) {
	f := fleettest.New(fleet.Deps{})
	placementtest.New(t, 1, f.Fleet)
	defer f.Close()
	connect := func(label string) *link.Link {
		fake, err := f.Connect(link.Peer{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		return fake.Link
	}
	old, present := connect("old"), connect("present")
	s := newTestSession(&fakeStream{}, 4)
	s.flow.epoch, s.flow.link = 2, present
	for sequence := uint64(1); sequence <= 4; sequence++ {
		s.Token(made(2, sequence))
	}
	if g := s.Flush(old); g != nil {
		t.Errorf("the old worker gets %v", g)
	}
	if s.flow.client.granted != 8 {
		t.Errorf("granted up to %d", s.flow.client.granted)
	}
}

// run runs s with a placement that has no workers; what it returns ends it.
func run(t *testing.T, s *Session) (p *placement.Placement, stop func()) {
	clock := s.deps.Clock
	p = placementtest.New(t, 1, fleet.New(link.Config{}, fleet.Deps{Log: zap.NewNop(), Clock: clock}))
	s.deps.Placement, s.deps.Swaps = p, func(migration.Record) {}
	s.flow.wish, s.flow.highest = nil, 0
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	running.Go(func() { _ = clock.Run(ctx, func() {}) })
	synctest.Wait()
	return p, func() { cancel(); running.Wait() }
}

// TestEndedSessionWantsNoWorker ends a stream whose client does not read, just when another worker was asked for.
func TestEndedSessionWantsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSession(&fakeStream{full: true, unblock: make(chan struct{}), cancelled: make(chan struct{})}, 4)
		s.cfg.WorkerWait = 0 // any loss ends it
		p, stop := run(t, s)
		defer stop()
		if r := s.flow.wish.Request; s.Lost(r, nil, link.CauseTether) {
			p.Queue(r)
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if _, waiting := p.Workers(); waiting != 0 {
			t.Errorf("%d sessions wait for a worker", waiting)
		}
	})
}

func TestLateFlushStartsNoWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := &fakeStream{}
		s := newTestSession(stream, 4)
		_, stop := run(t, s)
		s.mu.Lock()
		s.flow.epoch = 1
		s.mu.Unlock()
		stream.full = true
		s.Token(made(1, 1)) // its reader's batch is not over
		stop()
		s.Flush(nil)
		if s.flow.client.writing {
			t.Error("a goroutine writes although Run has returned")
		}
	})
}
