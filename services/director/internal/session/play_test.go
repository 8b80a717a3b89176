package session_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
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
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/placement/placementtest"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/session/sessiontest"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	sharedsession "github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// play is a session that runs in a bubble, with workers that do what the test says.
type play struct {
	*testing.T
	fleet     *fleettest.Fleet
	placement *placement.Placement
	cfg       session.Config
	s         *session.Session
	client    *sessiontest.Client
	keeper    *keeper
	limiter   *checkpoint.Limiter
	clock     *clock.StallProof

	mu    sync.Mutex
	over  []migration.Record // handovers
	moved []migration.Record // what plans were answered

	rollBack func(reason string) // of the newest plan

	closed error // with which the leg was closed; nil for any that does nothing else before each push

	end func() // ends the session, and returns when nothing of it runs
}

// script says how the play differs from the usual one.
type script struct {
	cfg    func(*session.Config)
	rate   int // of migration tokens for one target, per second
	tokens uint32
	stop   []string
	along  bool          // another worker is to run along
	pushed func(p *play) // called before each push to the client, by whoever pushes
	waits  time.Duration // that a client that is lost may come back; 0 for not at all
}

func usual() session.Config {
	return session.Config{
		MaxBytes: 1000, Window: 8, ClientStall: time.Minute, MaxSwapsPerMinute: 30, MaxWorkerDeaths: 3,
		Tokens: stream.Timeouts{FirstToken: 30 * time.Second, TokenMin: 30 * time.Second, Factor: 4},
		Handover: handover.Config{
			WorkerWait: time.Minute, ConfirmTimeout: time.Minute, AttachTimeout: 2 * time.Second, TransferTimeout: 10 * time.Second, FirstTokenTimeout: 30 * time.Second,
		},
		Checkpoint: checkpoint.Config{TransferTimeout: 10 * time.Second},
	}
}

func inPlay(t *testing.T, sc script, test func(p *play)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, sc)
		defer p.close()
		p.told("waits")
		test(p)
	})
}

func newPlay(t *testing.T, sc script) *play {
	clock := &clock.StallProof{}
	p := &play{
		T: t, cfg: usual(), fleet: fleettest.New(fleet.Deps{Clock: clock}), keeper: &keeper{}, limiter: checkpoint.NewLimiter(),
	}
	if sc.cfg != nil {
		sc.cfg(&p.cfg)
	}
	p.placement = placementtest.New(t, 10, p.fleet.Fleet)
	p.clock = clock
	p.cfg.ResumeWait = sc.waits
	open := func(log *stream.Log, tell func(any)) session.Leg {
		p.client = sessiontest.New(log, stream.Cursor{}, tell, clock)
		if sc.pushed != nil {
			return pushing{p.client, p, func() { sc.pushed(p) }}
		}
		return p.client
	}
	who := session.Identity{ID: 7, Connection: 1, ConnectionID: "conn-test", StreamID: 1, Resumable: sc.waits > 0}
	p.s = session.New(who, &wirepb.Request{MaxTokens: cmp.Or(sc.tokens, 100), Stop: sc.stop, Standby: sc.along}, nil, open, p.cfg, session.Deps{
		Placement: p.placement, Clock: clock, Log: zap.NewNop(), Events: event.NewBus(p.happened), Checkpoints: p.keeper, Limiter: p.limiter,
		Tokens: token.NewIssuer(token.Config{Director: "d", Rate: cmp.Or(sc.rate, 1000), TTL: 30 * time.Second}),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ticking, silent := context.WithCancel(t.Context())
	var running, ticks sync.WaitGroup
	running.Go(func() { p.s.Run(ctx) })
	ticks.Go(func() { _ = clock.Run(ticking, func() {}) })
	p.end = func() { cancel(); running.Wait() }
	t.Cleanup(func() { silent(); ticks.Wait() })
	return p
}

// pushing is a leg that does something else before each push.
type pushing struct {
	*sessiontest.Client
	play  *play
	first func()
}

func (l pushing) Push() { l.first(); l.Client.Push() }

func (l pushing) Close(err error) { l.play.closed = err }

// close ends everything, and fails if the session still holds something.
func (p *play) close() {
	p.end()
	p.empty()
	p.fleet.Close()
}

// happened takes note of handovers that are over, placements aside.
func (p *play) happened(e event.Event) {
	over, ok := e.Body.(event.HandoverEnded)
	if !ok || over.Record.Kind == migration.Placement.String() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = append(p.over, over.Record)
}

// empty fails if a session that has ended still holds something.
func (p *play) empty() {
	p.Helper()
	workers, waiting := p.placement.Workers()
	for _, w := range workers {
		if w.Sessions != 0 || w.Incoming != 0 {
			p.Errorf("after the session's end: %+v", w)
		}
	}
	if waiting != 0 || p.s.Swap() != nil {
		p.Errorf("after the session's end %d wait, swap %v", waiting, p.s.Swap())
	}
}

// keeper is Checkpoints that a test answers for.
type keeper struct {
	mu      sync.Mutex
	fetches []*wirepb.Fetch
	done    func(uint64, error)
	cancels int
	kept    bool // there is a state
	allowed []*wirepb.Token
	drops   int
	dropped func() // called once, right after the next drop; nil for nothing
}

func (k *keeper) Fetch(from *wirepb.Fetch, done func(uint64, error)) (cancel func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetches, k.done = append(k.fetches, from), done
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.cancels++
	}
}

func (k *keeper) Addr(*link.Link) (addr, keeper string) { return "director:61001", "director-1" }

func (k *keeper) Allow(t *wirepb.Token) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.allowed = append(k.allowed, t)
	return nil
}

func (k *keeper) Drop(uint64) {
	k.mu.Lock()
	dropped := k.dropped
	k.kept, k.dropped = false, nil
	k.drops++
	k.mu.Unlock()
	if dropped != nil {
		dropped()
	}
}

// arrive has the state that was asked for last arrive.
func (k *keeper) arrive(sequence uint64, err error) {
	k.mu.Lock()
	done := k.done
	k.kept = err == nil
	k.mu.Unlock()
	done(sequence, err)
	synctest.Wait()
}

// actor is one of the workers.
type actor struct {
	*fleettest.Fake
	play *play
	mail []wire.Message
}

func (p *play) worker(label string, change ...func(*link.Peer)) *actor {
	w := link.Peer{Label: label, Capacity: 2, Version: 2, Models: []routing.Model{{Name: "model", Fingerprint: "engine", Continuity: wire.ContinuityExact}}, MgmtAddr: label + ":63001"}
	for _, c := range change {
		c(&w)
	}
	fake, err := p.fleet.Connect(w)
	if err != nil {
		p.Fatal(err)
	}
	return &actor{Fake: fake, play: p}
}

func stateful(w *link.Peer) { w.Models[0].Stateful = true }

// allows fails unless the worker is the next one that is given the token of this secret, for such a thing.
func (a *actor) allows(secret []byte, purpose wirepb.Purpose, target string) {
	a.play.Helper()
	t := got[*wirepb.Allow](a).GetToken()
	if len(secret) == 0 || !bytes.Equal(t.GetSecret(), secret) || t.GetPurpose() != purpose || t.GetTarget() != target || t.GetSession() != 7 {
		a.play.Errorf("%s is told to allow %v", a.Worker(), t)
	}
}

// read takes what has been sent to the worker.
func (a *actor) read() {
	a.play.Helper()
	synctest.Wait()
	all, err := a.Received()
	if err != nil {
		a.play.Fatal(err)
	}
	a.mail = append(a.mail, all...)
}

// got returns the next message of a type that was sent to the worker; what came before it is forgotten.
func got[M wire.Message](a *actor) M {
	a.play.Helper()
	a.read()
	for i, m := range a.mail {
		if m, ok := m.(M); ok {
			a.mail = a.mail[i+1:]
			return m
		}
	}
	var none M
	a.play.Fatalf("%s was sent no %T, but %v", a.Worker(), none, a.mail)
	return none
}

// without fails if a message of this type was sent to the worker.
func without[M wire.Message](a *actor) {
	a.play.Helper()
	a.read()
	for _, m := range a.mail {
		if m, ok := m.(M); ok {
			a.play.Errorf("%s was sent %T: %v", a.Worker(), m, m)
		}
	}
}

func text(sequence uint64) []byte { return fmt.Appendf(nil, "%d;", sequence) }

// digest is that over the tokens up to one.
func digest(upTo uint64) []byte {
	var r sharedsession.Rolling
	for n := uint64(1); n <= upTo; n++ {
		r.Add(wire.Chunk{Text: text(n)})
	}
	d := r.Digest()
	return d[:]
}

func frames(epoch, from, to uint64) (b []byte) {
	for n := from; n <= to; n++ {
		b = wire.AppendLinkChunk(b, wire.Chunk{Session: 7, Epoch: epoch, Sequence: n, Text: text(n)})
	}
	return b
}

func begins(epoch, next uint64) []byte {
	return wire.Append(nil, &wirepb.Begin{Session: 7, Epoch: epoch, NextSequence: next, Digest: digest(next - 1)})
}

func ends(epoch, tokens uint64) []byte {
	return wire.Append(nil, &wirepb.End{Session: 7, Epoch: epoch, FinishReason: "stop", Tokens: tokens, Digest: digest(tokens)})
}

// say has the worker say things at once, on a token stream.
func (a *actor) say(what ...[]byte) {
	a.play.Helper()
	if err := a.Say(bytes.Join(what, nil)); err != nil {
		a.play.Fatal(err)
	}
	synctest.Wait()
}

// report has the worker say something on the control stream.
func (a *actor) report(m wire.Message) {
	a.play.Helper()
	if err := a.Report(m); err != nil {
		a.play.Fatal(err)
	}
	synctest.Wait()
}

func (a *actor) prepared(epoch, sequence uint64) {
	a.play.Helper()
	a.report(&wirepb.Prepared{Session: 7, Epoch: epoch, Sequence: sequence})
}

// serve has the worker take the session over with an ordinary attempt, and make a few tokens.
func (a *actor) serve(epoch, from, to uint64) {
	a.play.Helper()
	attach := got[*wirepb.Attach](a)
	if attach.GetEpoch() != epoch || attach.GetStandby() || uint64(len(attach.GetPrefix().GetLengths())) != from-1 {
		a.play.Fatalf("%s was given %v", a.Worker(), attach)
	}
	a.say(begins(epoch, from))
	a.say(frames(epoch, from, to))
}

// plan asks for a planned swap.
func (p *play) plan(plan handover.Plan) {
	p.Helper()
	plan.Done = func(r migration.Record) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.moved = append(p.moved, r)
	}
	p.rollBack = p.s.Initiate(plan)
	synctest.Wait()
}

// outcome returns how the newest plan ended, and fails unless it is the only one not asked about yet.
func (p *play) outcome() migration.Record {
	p.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.moved) != 1 {
		p.Fatalf("%d plans are over: %+v", len(p.moved), p.moved)
	}
	r := p.moved[0]
	p.moved = nil
	return r
}

// state fails unless the swap under way is in this state.
func (p *play) state(want migration.State) {
	p.Helper()
	synctest.Wait()
	if r := p.s.Swap(); r == nil || r.State != want.String() {
		p.Fatalf("the swap is %+v, want it in %s", r, want)
	}
}

// told fails unless this is what the client was told since the last call.
func (p *play) told(want string) {
	p.Helper()
	synctest.Wait()
	b := p.client.Read()
	if got := spoken(p, b); got != want {
		p.Errorf("the client was told\n     %s\nwant %s", got, want)
	}
}

// spoken is what frames say, in few words.
func spoken(p *play, b []byte) string {
	var words []string
	r := wire.NewReader(bytes.NewReader(b), wire.MaxControl)
	for {
		f, err := r.Next()
		if err != nil {
			return strings.Join(words, " ")
		}
		if f.Type == wire.TypeToken {
			if tok, err := wire.ParseChunk(f); err == nil && bytes.Equal(tok.Text, text(tok.Sequence)) {
				words = append(words, fmt.Sprint(tok.Sequence))
				continue
			}
			p.Errorf("the client got %q", f.Body)
		}
		m, err := wire.Decode(f)
		if err != nil {
			p.Fatal(err)
		}
		words = append(words, phrase(m))
	}
}

// classed says in words what is promised, or was done, below exact.
func classed(class uint32) string {
	if class == wire.ContinuityExact {
		return ""
	}
	return ", " + wire.Continuity(class)
}

func phrase(m wire.Message) string {
	switch m := m.(type) {
	case *wirepb.Assigned:
		return "on " + m.GetWorker() + classed(m.GetContinuity())
	case *wirepb.Waiting:
		return "waits"
	case *wirepb.Swapped:
		return fmt.Sprintf("(%s %s→%s in %d%s)", m.GetKind(), m.GetFromWorker(), m.GetToWorker(), m.GetEpoch(), classed(m.GetContinuity()))
	case *wirepb.Done:
		return "done"
	case *wirepb.Error:
		return "error " + m.GetCode()
	}
	return fmt.Sprintf("%T", m)
}
