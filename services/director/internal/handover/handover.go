// Package handover moves one stream from one attempt to the next: to its first worker, away from a worker that is lost,
// or away from one that still serves it. The twelve states are those of package migration, which decides; the one
// interpreter here carries out, for all three kinds.
//
// The client knows of a handover when it is told, in the step to Completing. A planned handover leaves the source as it
// was up to its cut.
package handover

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config bounds how long a handover waits, in stall-proof time.
type Config struct {
	WorkerWait        time.Duration // for a place at a worker
	ConfirmTimeout    time.Duration // for an operator
	AttachTimeout     time.Duration // for the target to take the stream
	TransferTimeout   time.Duration // the same, where an engine's state moves too
	FirstTokenTimeout time.Duration // for the target to go on
}

// Places is where a handover gets its place at a worker: see package placement. The answer to Queue comes to the owner,
// which passes it on to Granted. The handover releases its place when it ends without the target having become the
// stream's worker, unless the place was lost with the target.
type Places interface {
	Queue(r *placement.Request)
	Release(r *placement.Request)
	HandoverEnded(r *placement.Request)
	Latency(l *link.Link) *routing.Latency
}

// Owner is the owner of the stream, whose goroutine calls the handover.
type Owner interface {
	// Cut makes the target the attempt that the stream depends on, in place of the source, and opens the log for it:
	// see stream.Log. It reports false if one of the two has been lost in this moment; then the event that says so is
	// on its way.
	Cut(source, target *attempt.Attempt) (credit, cut uint64, ok bool)
	// Serve makes the target the worker of the stream, which the client is told with m: see stream.Log. It reports
	// false if the target has been lost in this moment; then the event that says so is on its way.
	Serve(target *attempt.Attempt, m wire.Message) (gap time.Duration, ok bool)
	// Show shows people where the handover stands.
	Show(h *Handover)
}

// Deps is what a handover needs from outside.
type Deps struct {
	Stream *attempt.Stream
	States *checkpoint.Keeper
	Places Places
	Owner  Owner
	Clock  *clock.StallProof
	Log    *zap.Logger
}

// Plan asks to move a stream while its worker still serves it.
type Plan struct {
	To      string // label of the worker to move to; empty for any other than the present one
	Cause   string // why, for people: drain, rebalance, operator …
	Confirm bool   // an operator has to confirm it
	// Arrived is called at most once, before Done, when the target has got all that it needs before the cut; nil for
	// nobody.
	Arrived func()
	// Done is called once, by the goroutine of the stream's owner, when the handover is over, however it ended. Neither
	// may block.
	Done func(migration.Record)
}

// Handover is one handover. The goroutine of the stream's owner is the only one to call it, and to read the fields that
// begin with a capital; it changes none of them. While a handover is Over nothing of it waits for anything.
type Handover struct {
	*migration.Swap                    // where the handover stands, and its record
	Place           *placement.Request // for a place at the target
	Target          *attempt.Attempt   // nil until the place is granted
	Plan            *Plan              // of a planned handover, else nil

	cfg        Config
	deps       Deps
	source     *attempt.Attempt // of a planned handover, else nil
	unassigned time.Duration    // stall-proof time at which the stream was left without a worker, for all other kinds
	entered    time.Duration    // stall-proof time at which the present state was entered
	lost       bool             // the target's worker is gone, and its place with it
	cut        bool             // the source of a planned handover is fenced
	released   bool             // and has been left
	yielded    bool             // the source is lost, and the target goes on in a handover of its own
	promoted   bool             // the target ran along: it has its place, and waits for its pivot
	credit     uint64           // with which it then goes on
	standby    standby
	recovery   recovery // of the target
}

// New returns a handover from nobody, or from a worker of that label which is lost for a cause. The stream is without a
// worker since a moment of the stall-proof clock. Start begins it.
func New(from, cause string, place *placement.Request, unassigned time.Duration, cfg Config, deps Deps) *Handover {
	kind := migration.Failover
	if from == "" {
		kind = migration.Placement
	}
	h := &Handover{cfg: cfg, deps: deps, Place: place, unassigned: unassigned}
	h.Swap = migration.NewSwap(kind, from, cause, time.Now())
	return h
}

// NewPlanned returns a handover from an attempt that serves the stream.
func NewPlanned(source *attempt.Attempt, place *placement.Request, plan *Plan, cfg Config, deps Deps) *Handover {
	h := &Handover{cfg: cfg, deps: deps, Place: place, source: source, Plan: plan}
	h.Swap = migration.NewSwap(migration.Planned, source.Link.Worker(), plan.Cause, time.Now())
	return h
}

// Start begins the handover.
func (h *Handover) Start() {
	if h.source == nil { // fenced, the log does not grow
		h.Cut = h.log().Len()
	}
	h.advance(migration.Start)
}

// advance is the interpreter: it steps the handover with an event, carries out the actions that follow, and takes the
// event that an action brings as the next one. Nothing else steps a handover, and no action calls advance.
func (h *Handover) advance(event migration.Event) {
	for more := true; more; {
		actions, err := h.Apply(event, time.Now())
		if err != nil {
			h.deps.Log.Error("handover", zap.Error(err))
			return
		}
		h.entered, h.standby.asked, h.standby.late, h.recovery.begun = h.deps.Clock.Now(), false, false, false
		h.deps.Owner.Show(h)
		more = false
		for _, action := range actions { // at most one of them brings an event
			if next, ok := h.act(action); ok {
				event, more = next, true
			}
		}
	}
	if h.Over() {
		h.clear()
	}
}

// clear gives back what a handover that is over has no use for: the place, unless the target has it for good, and a
// source that was fenced.
func (h *Handover) clear() {
	if h.State() != migration.Completed && !h.lost && !h.yielded {
		h.deps.Places.Release(h.Place)
	}
	if h.cut {
		h.releaseSource()
	}
}

// act carries out one action, and returns the event that it brings at once, if it does.
func (h *Handover) act(action migration.Action) (event migration.Event, ok bool) {
	switch action {
	case migration.Pick:
		if h.promoted {
			return migration.Granted, true
		}
		h.deps.Places.Queue(h.Place)
	case migration.Confirm:
		if !h.Plan.Confirm {
			return migration.Confirmed, true
		}
		h.deps.Log.Info("planned swap waits for confirmation",
			zap.String("from_worker", h.From), zap.String("to_worker", h.To))
	case migration.Open:
		return h.open()
	case migration.Capture:
		return h.capture()
	case migration.Transfer:
		return h.transfer()
	case migration.Pivot:
		return h.pivot()
	case migration.Verify:
		h.deps.Places.HandoverEnded(h.Place)    // what remains takes the engine's time, and nobody else's
		if h.source == nil && h.log().Waits() { // for a planned handover the target has yet to say where it begins
			return migration.Verified, true
		}
	case migration.Tell:
		return h.tell()
	case migration.ReleaseSource:
		h.releaseSource()
	case migration.ReleaseTarget:
		h.releaseTarget()
	}
	return 0, false
}

// open opens the attempt on the target: as a standby, if the source still serves.
func (h *Handover) open() (migration.Event, bool) {
	if h.source == nil {
		return migration.Opened, true
	}
	h.standby.open()
	return 0, false
}

// capture takes what the target goes on from. Of a stream that nobody serves that is the log; fenced, it does not grow.
func (h *Handover) capture() (migration.Event, bool) {
	if h.source == nil || !h.Target.Stateful() {
		return migration.Captured, true
	}
	h.standby.capture = h.deps.States.Request(h.source)
	return 0, false
}

// transfer gives it to the target.
func (h *Handover) transfer() (migration.Event, bool) {
	switch {
	case h.promoted:
		return h.promote()
	case h.source == nil:
		h.Target.Attach(h.deps.States.For(h.Target))
		return 0, false
	case h.Target.Stateful():
		h.standby.fetch()
		return 0, false
	}
	return h.standby.follow()
}

// pivot leaves the source. One that is lost was fenced then; one that serves is left right behind its next token, so
// that the target has the whole interval to the one after it.
func (h *Handover) pivot() (migration.Event, bool) {
	if h.source == nil {
		return migration.Pivoted, true
	}
	h.log().Await()
	if h.Plan.Arrived != nil {
		h.Plan.Arrived()
	}
	return 0, false
}

// tell makes the target the worker of the stream, in the log and for the client at once: what the target sent so far
// waits in the log for this. If the target was lost meanwhile, the event that says so is on its way.
func (h *Handover) tell() (migration.Event, bool) {
	var m wire.Message = &wirepb.Assigned{Worker: h.To, Epoch: h.Epoch, Continuity: h.Target.Pledge.Continuity}
	if h.Kind != migration.Placement {
		m = &wirepb.Swapped{
			FromWorker: h.From, ToWorker: h.To, Kind: h.Kind.String(), Cause: h.Cause,
			Epoch: h.Epoch, LastSequence: h.Cut, Continuity: h.Target.Pledge.Resumed,
		}
	}
	gap, ok := h.deps.Owner.Serve(h.Target, m)
	if !ok {
		return 0, false
	}
	h.Gap = gap
	h.deps.Stream.Leg.Push()
	h.Target.Grant()
	return migration.Told, true
}

// releaseSource takes the stream back from the worker that a planned handover leaves.
func (h *Handover) releaseSource() {
	if h.released {
		return
	}
	h.released = true
	h.source.Leave()
	h.deps.States.Forget(h.source)
	h.deps.Places.Release(h.source.Place)
}

// releaseTarget takes the stream back from a target that does not come to serve it. After a planned handover source and
// target are told that its migration tokens are good for nothing any more.
func (h *Handover) releaseTarget() {
	if h.yielded {
		return
	}
	h.Target.Leave()
	if h.source != nil {
		for _, a := range []*attempt.Attempt{h.source, h.Target} {
			a.Link.Send(&wirepb.Revoke{Session: a.ID, Epoch: h.Target.Epoch})
		}
		h.deps.States.Forget(h.source)
	}
}

// Granted gives the handover its place.
func (h *Handover) Granted(l *link.Link) {
	h.Target = attempt.New(h.deps.Stream, h.Place, l, h.deps.Stream.NextEpoch())
	h.Target.Latency = h.deps.Places.Latency(l)
	h.To, h.Epoch = l.Worker(), h.Target.Epoch
	h.standby = standby{source: h.source, target: h.Target, timeout: h.cfg.TransferTimeout, log: h.deps.Log}
	h.deps.Log.Debug("opening attempt", zap.String("worker", h.To), zap.Uint64("epoch", h.Epoch))
	h.advance(migration.Granted)
}

// Begun acts on the target's word where it begins, and with which prefix. It reports false if that is not where the log
// ends, or not the text that the log has: such a target must not continue the stream.
func (h *Handover) Begun(m *wirepb.Begin) bool {
	digest, tokens := h.log().Digest()
	if m.GetNextSequence() != h.Cut+1 || tokens != h.Cut || !digest.Equal(m.GetDigest()) {
		h.deps.Log.Error("target's prefix differs",
			zap.String("worker", h.To), zap.Uint64("sequence", m.GetNextSequence()), zap.Uint64("cut", h.Cut))
		return false
	}
	if h.State() == migration.TransferringState {
		h.advance(migration.Accepted)
	}
	return true
}

// Verified says that the target's first token is there, or that there was nothing left for it to make.
func (h *Handover) Verified() {
	if h.State() == migration.Verifying {
		h.advance(migration.Verified)
	}
}

// End ends the handover with the event that says why it does not come to its end. It does nothing if the handover is
// over.
func (h *Handover) End(event migration.Event, reason string) {
	if !h.Over() {
		h.Reason = reason
		h.advance(event)
	}
}

// TargetLost ends the handover because the worker of the target is gone, and the place there with it.
func (h *Handover) TargetLost(reason string) {
	h.lost = true
	h.End(migration.TargetLost, reason)
}

func (h *Handover) log() *stream.Log { return h.deps.Stream.Log }

// SourceServes reports whether the source still serves the stream: the handover is planned, and its cut is not made.
func (h *Handover) SourceServes() bool { return h.source != nil && h.State() <= migration.Pivoting }

// Over reports whether the handover has ended.
func (h *Handover) Over() bool { return h.State().Final() }

// Record returns the handover as it is shown to people and programs.
func (h *Handover) Record() migration.Record {
	r := h.Swap.Record(time.Now())
	r.ConnectionID, r.StreamID = h.deps.Stream.ConnectionID, h.deps.Stream.StreamID
	return r
}
