package maintenance

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement/placementtest"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/session/sessiontest"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// world is a director's sessions and workers, in a bubble. The workers do what is asked of them.
type world struct {
	*testing.T
	*Service
	fleet    *fleettest.Fleet
	sessions *session.Manager
	workers  map[string]*worker
	running  sync.WaitGroup
	over     atomic.Int64 // swaps
	moving   atomic.Int64 // states that were captured and have not arrived
	most     atomic.Int64 // of them at once
	ctx      context.Context
	clock    *clock.StallProof
}

func inWorld(t *testing.T, cfg Config, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock := &clock.StallProof{}
		ctx, stop := context.WithCancel(t.Context())
		w := &world{T: t, workers: map[string]*worker{}, ctx: ctx, clock: clock}
		w.fleet = fleettest.New(fleet.Deps{Clock: clock})
		places := placementtest.New(t, 100, w.fleet.Fleet)
		w.sessions = session.NewManager(session.Config{
			MaxBytes: 1 << 20, Window: 1000, ClientStall: time.Minute, MaxSwapsPerMinute: 30, MaxWorkerDeaths: 3,
			Tokens: stream.Timeouts{FirstToken: 30 * time.Second, TokenMin: time.Second, Factor: 4},
			Handover: handover.Config{
				WorkerWait: time.Minute, AttachTimeout: 2 * time.Second, FirstTokenTimeout: 30 * time.Second, ConfirmTimeout: time.Minute,
				TransferTimeout: time.Minute,
			},
		}, session.Deps{
			Placement: places, Clock: clock, Log: zap.NewNop(), Events: event.NewBus(func(e event.Event) {
				if over, ok := e.Body.(event.HandoverEnded); ok && over.Record.Kind != migration.Placement.String() {
					w.over.Add(1)
				}
			}),
			Checkpoints: nowhere{},
			Tokens:      token.NewIssuer(token.Config{Director: "d", Rate: 10_000, TTL: 30 * time.Second}),
		}, time.Minute)
		w.Service = New(cfg, w.sessions, places, w.fleet.Fleet, zap.NewNop())
		w.running.Go(func() { _ = clock.Run(ctx, func() {}) })
		defer func() {
			w.Close()
			stop()
			w.running.Wait()
			w.fleet.Close()
		}()
		test(w)
	})
}

// nowhere is where no checkpoints are kept.
type nowhere struct{ checkpoint.Store }

func (nowhere) Drop(uint64) {}

// wait lets time pass in the bubble.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// begin begins streams, each on a connection of its own: conn-1 and so on.
func (w *world) begin(streams int) {
	for range streams {
		n := uint64(w.sessions.Running() + 1)
		who := session.Identity{Connection: n, ConnectionID: fmt.Sprintf("conn-%d", n), StreamID: 1}
		s := w.sessions.Create(who, &wirepb.Request{MaxTokens: 1 << 30}, nil, func(log *stream.Log, tell func(any)) session.Leg {
			return sessiontest.New(log, stream.Cursor{}, tell, w.clock)
		})
		w.running.Go(func() {
			defer w.sessions.Retire(s)
			s.Run(w.ctx)
		})
	}
	w.wait(100 * time.Millisecond)
}

// on returns how many sessions the workers serve, in the order of the labels.
func (w *world) on(labels ...string) string {
	count := map[string]int{}
	for _, l := range w.sessions.List() {
		if l.State == session.Streaming {
			count[l.Worker]++
		}
	}
	var all []int
	for _, label := range labels {
		all = append(all, count[label])
	}
	return fmt.Sprint(all)
}

// worker makes a token every 50 ms for each session that it serves.
type worker struct {
	*fleettest.Fake

	mu       sync.Mutex
	refuses  wire.Code          // to be a standby
	standbys int                // that it was asked to be
	fetching []*wirepb.Prepared // what to say when the states have arrived
	attempts map[uint64]*attempt
}

type attempt struct {
	epoch, next uint64
	serving     bool
}

func (w *world) worker(label string, capacity int, change ...func(*link.Peer)) *worker {
	info := link.Peer{Label: label, Instance: label + "-1", Capacity: capacity, Version: 2, Models: []routing.Model{{Name: "model", Fingerprint: "engine"}}}
	for _, c := range change {
		c(&info)
	}
	fake, err := w.fleet.Connect(info)
	if err != nil {
		w.Fatal(err)
	}
	one := &worker{Fake: fake, attempts: map[uint64]*attempt{}}
	w.workers[label] = one
	w.running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-w.ctx.Done():
				return
			case <-tick.C:
				one.work(w, n%10 == 0)
			}
		}
	})
	return one
}

// available has the worker say whether it takes sessions.
func (o *worker) available(w *world, yes bool) {
	if err := o.Report(&wirepb.WorkerStatus{Available: yes}); err != nil {
		w.Error(err)
	}
}

func (o *worker) refuse(code wire.Code) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuses = code
}

// asked returns how often it was asked to be a standby since the last call.
func (o *worker) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.standbys = 0 }()
	return o.standbys
}

// work does what was asked for meanwhile, and makes tokens.
func (o *worker) work(w *world, tokens bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	mail, err := o.Received()
	if err != nil {
		w.Error(err)
	}
	var said bytes.Buffer
	for _, m := range mail {
		if answer := o.answer(w, m, &said); answer != nil {
			err = o.Report(answer)
		}
		if err != nil {
			w.Error(err)
		}
	}
	if tokens {
		for _, m := range o.fetching {
			w.moving.Add(-1)
			if err := o.Report(m); err != nil {
				w.Error(err)
			}
		}
		o.fetching = nil
	}
	for id, a := range o.attempts {
		if tokens && a.serving {
			said.Write(wire.AppendLinkChunk(nil, wire.Chunk{Session: id, Epoch: a.epoch, Sequence: a.next, Text: []byte("x")}))
			a.next++
		}
	}
	if err := o.Say(said.Bytes()); err != nil {
		w.Error(err)
	}
}

// answer returns what to report, if anything. What goes to a token stream is written to said.
func (o *worker) answer(w *world, m wire.Message, said *bytes.Buffer) wire.Message {
	begin := func(id, next uint64, digest []byte) {
		a := o.attempts[id]
		a.next, a.serving = next, true
		said.Write(wire.Append(nil, &wirepb.Begin{Session: id, Epoch: a.epoch, NextSequence: next, Digest: digest}))
	}
	switch m := m.(type) {
	case *wirepb.Attach:
		length := uint64(len(m.GetPrefix().GetLengths()))
		if m.GetStandby() {
			o.standbys++
			if o.refuses != "" {
				return &wirepb.Refused{Session: m.GetSession(), Epoch: m.GetEpoch(), Code: string(o.refuses), Message: "no"}
			}
		}
		o.attempts[m.GetSession()] = &attempt{epoch: m.GetEpoch()}
		if m.GetStandby() {
			return &wirepb.Prepared{Session: m.GetSession(), Epoch: m.GetEpoch(), Sequence: length}
		}
		begin(m.GetSession(), length+1, m.GetPrefix().GetDigest())
	case *wirepb.Feed:
		last := m.GetFirstSequence() + uint64(len(m.GetLengths())) - 1
		return &wirepb.Prepared{Session: m.GetSession(), Epoch: m.GetEpoch(), Sequence: last}
	case *wirepb.Capture:
		w.most.Store(max(w.most.Load(), w.moving.Add(1)))
		return &wirepb.Captured{Session: m.GetSession(), Epoch: m.GetEpoch(), Capture: m.GetCapture(), Size: 1 << 20}
	case *wirepb.Fetch:
		o.fetching = append(o.fetching, &wirepb.Prepared{Session: m.GetSession(), Epoch: m.GetEpoch()})
	case *wirepb.Pivot:
		begin(m.GetRest().GetSession(), m.GetCut()+1, m.GetDigest())
	case *wirepb.Cancel:
		if a := o.attempts[m.GetSession()]; a != nil && a.epoch == m.GetEpoch() {
			delete(o.attempts, m.GetSession())
		}
	}
	return nil
}
