package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// assignment is which worker has the stream: the attempt that serves it, and the handover under way to the next. The
// session's goroutine owns it, and is the only one to call it.
//
// What must hold: until the stream is over it has a serving attempt, or a handover, or both while the handover's source
// serves. depends always names the place that the log is open for, so that a loss fences the right attempt, and the
// stream has at most two places: that one, and the one of a planned handover before its cut.
type assignment struct {
	cfg     Config
	deps    Deps
	log     *zap.Logger
	stream  *attempt.Stream
	view    *View              // written here, read by anybody
	depends dependence         // shared with placement
	states  *checkpoint.Keeper // told what becomes of the serving attempt
	blame   blame

	serving       *attempt.Attempt   // nil while none serves the stream
	handover      *handover.Handover // under way, or nil
	along         alongside          // the attempt that runs along meanwhile
	reported      *attempt.Attempt   // the last one of which placement was told how it went
	unassigned    time.Duration      // stall-proof time at which the stream was left without a worker
	waitAnnounced bool               // the client was told that it waits, since unassigned
	unread        bool               // the client reads nothing
	// lateEnd is the End of a worker that had just been left when it came: the stream is complete if its log still ends
	// there.
	lateEnd *wirepb.End

	recoveryTold time.Duration // stall-proof time at which the client was told last how far the next worker is
}

// ending is why a stream has to end: complete with a finish reason, or in an error.
type ending struct {
	err     *wire.Error // nil if it is complete
	finish  string
	reasons []string      // of each choice, where there are several
	usage   *wirepb.Usage // nil where nobody knows it
}

// begin asks for the first worker.
func (a *assignment) begin() {
	a.unassigned = a.deps.Clock.Now()
	a.move(a.place(""), "")
}

// move begins a handover from a worker that is lost for a cause, or from nobody. place is a new request, or one that
// placement has queued again.
func (a *assignment) move(place *placement.Request, cause string) {
	a.depends.on(place, nil)
	a.handover = handover.New(a.view.announced(), cause, place, a.unassigned, a.cfg.Handover, a.handoverDeps())
	a.handover.Start()
	a.finishHandover()
}

// plan begins a planned handover. Checkpoints pause meanwhile: what they would take of the engine's state, the handover
// takes.
func (a *assignment) plan(p *handover.Plan) {
	a.dropAlong(false)
	a.states.Pause()
	place := a.request(placement.Request{
		Kind: migration.Planned, Need: routing.Need{Avoid: a.serving.Link.Worker(), Only: p.To},
	})
	a.depends.plans(place)
	a.handover = handover.NewPlanned(a.serving, place, p, a.cfg.Handover, a.handoverDeps())
	a.handover.Start()
}

func (a *assignment) handoverDeps() handover.Deps {
	return handover.Deps{
		Stream: a.stream, States: a.states, Places: a.deps.Placement, Owner: a, Clock: a.deps.Clock, Log: a.log,
	}
}

// place returns a new request, for a worker other than avoid if there is another. The place that the stream had before
// has been released.
func (a *assignment) place(avoid string) *placement.Request {
	r := placement.Request{Kind: a.depends.kind, Need: routing.Need{Avoid: avoid}}
	if a.depends.own != nil {
		r.BadTries = a.depends.own.BadTries
	}
	return a.request(r)
}

// request fills in what all requests of the stream have in common.
func (a *assignment) request(r placement.Request) *placement.Request {
	r.Session, r.ID, r.Started, r.Holder = &a.depends, a.stream.ID, a.view.started.Unix(), a.view.who.Holder
	need := a.view.Need()
	r.Priority, r.Need.Model, r.Need.Fingerprint, r.Need.Portable = a.stream.Request.GetPriority(), need.Model, need.Fingerprint, need.Portable
	r.Need.Continuity = a.stream.Request.GetContinuity()
	if api := a.stream.Request.GetApi(); !wire.GeneratesText(api) {
		r.Need.API = api
	}
	a.deps.Placement.Unread(&r, a.unread)
	return &r
}

// read says whether the client reads what the stream has for it.
func (a *assignment) read(reads bool) {
	a.unread = !reads
	if a.depends.own != nil { // the owner alone changes it
		a.deps.Placement.Unread(a.depends.own, a.unread)
	}
}

// granted gives the handover its place, unless the grant is out of date: placement may have taken the place back while
// the event was on its way.
func (a *assignment) granted(e granted) {
	h := a.handover
	if !a.deps.Placement.HasPlace(e.place, e.link) {
		return
	}
	if along := a.along.Along; along != nil && along.Place == e.place {
		along.Granted(e.link)
		return
	}
	if h == nil || h.Place != e.place || h.State() != migration.Initiating {
		return
	}
	if a.stream.Request.GetModel() == "" { // whoever names none gets the worker's first, and keeps to that
		m, _ := e.link.Model("")
		a.stream.Request.Model = m.Name
		a.named(m.Name)
	}
	if !h.SourceServes() {
		a.depends.on(e.place, e.link)
		a.blame.began = a.stream.Log.Len()
	}
	h.Granted(e.link)
}

// named says by name which model the stream is to have.
func (a *assignment) named(model string) {
	a.view.named(model)
	a.depends.named(model)
}

// waiting tells the client, once, that there is no worker.
func (a *assignment) waiting(e waiting) {
	h := a.handover
	if a.waitAnnounced || h == nil || h.Place != e.place || h.SourceServes() || h.State() != migration.Initiating {
		return
	}
	a.waitAnnounced = true
	a.log.Info("waiting for a worker", zap.String("reason", e.reason))
	a.view.wait()
	a.stream.Log.Mark(&wirepb.Waiting{Reason: e.reason, TimeoutMs: uint64(max(0, h.Remaining()).Milliseconds())})
	a.stream.Leg.Push()
}

// lost acts on the loss of a place. dependence has fenced the log already, on the goroutine that noticed, and placement
// has queued the same request again.
func (a *assignment) lost(e lost) *ending {
	switch h := a.handover; {
	case a.serving != nil && a.serving.Place == e.place:
		return a.lose(e.cause, e.place)
	case a.along.Along != nil && a.along.Place == e.place:
		a.alongFailed(string(e.cause), true)
	case h == nil || h.Place != e.place:
	case h.SourceServes():
		h.TargetLost(string(e.cause))
	case h.Target != nil:
		return a.lose(e.cause, e.place)
	}
	return nil
}

// lose gives up the attempt that the stream depends on, and moves on, unless the stream has to end. If the worker's
// link is lost, queued is the place that has been asked for again already; else it is nil, and the worker is not to be
// taken again if there is another.
func (a *assignment) lose(cause link.Cause, queued *placement.Request) *ending {
	a.stream.Log.Fence()
	former, moved := a.present(), a.serving != nil
	reason := string(cause) // why the worker that the client knows was left
	if !moved && failing(cause) && a.handover.GotOn() {
		a.unassigned = a.deps.Clock.Now() // so far the stream has not waited for a worker
	}
	if moved {
		yielded := a.handover.Yield()
		a.end(migration.SourceLost, reason) // of a planned handover
		a.adopt(yielded)
	}
	a.blame.lost(cause, a.stream.Log.Len(), a.stream.Log.Exhausted(), a.deps.Placement.Proven(former.Link))
	a.stream.Tries = a.blame.differed
	if failing(cause) {
		a.report(former, false)
	}
	switch {
	case moved:
		a.detachServing(queued)
		a.unassigned, a.waitAnnounced = a.deps.Clock.Now(), false
		a.left(former.Link.Worker(), cause)
	case queued != nil:
		reason = a.handover.Cause
		a.handover.TargetLost(string(cause))
		a.finishHandover()
	default:
		reason = a.handover.Cause
		a.end(undone(cause), string(cause))
	}
	if end := a.endingAfter(moved, cause); end != nil {
		return end
	}
	if moved && a.promote(reason, queued) {
		return nil
	}
	a.dropAlong(false)
	if queued == nil {
		queued = a.place(former.Link.Worker())
	}
	a.move(queued, reason)
	return nil
}

// left logs that the stream has lost its worker.
func (a *assignment) left(worker string, cause link.Cause) {
	if cause == link.CauseUnread {
		a.log.Info("place is given to another stream", zap.String("worker", worker), zap.String("cause", string(cause)))
		return
	}
	a.log.Warn("worker failed - initiating connection migration",
		zap.String("worker", worker), zap.String("cause", string(cause)), telemetry.Always())
}

// present returns the attempt that the stream depends on, whose tokens the log takes: the serving one, or the one that
// it is moving to; nil if there is none.
func (a *assignment) present() *attempt.Attempt {
	if a.serving == nil && a.handover != nil {
		return a.handover.Target
	}
	return a.serving
}

// targets reports whether an attempt is the target of the handover under way.
func (a *assignment) targets(t *attempt.Attempt) bool {
	return a.handover != nil && a.handover.Target == t
}

// sourceServes reports whether a handover is under way whose source serves the stream.
func (a *assignment) sourceServes() bool { return a.handover != nil && a.handover.SourceServes() }

// report tells placement, once for each attempt, whether it made progress: so workers whose attempts fail get a
// cooldown.
func (a *assignment) report(of *attempt.Attempt, ok bool) {
	if a.reported == of {
		return
	}
	a.reported = of
	if ok {
		a.blame.suspected = 0
	}
	a.deps.Placement.Report(of.Place, of.Link, ok)
}

// detachServing takes the stream back from the worker that serves it, and its place unless that is queued again.
func (a *assignment) detachServing(queued *placement.Request) {
	a.serving.Leave()
	if queued == nil {
		a.deps.Placement.Release(a.serving.Place)
	}
	a.serving = nil
	a.states.Cut(a.stream.Log.Len())
}

// endingAfter returns why a stream that has lost its worker for a cause has to end; nil if it is to get another.
func (a *assignment) endingAfter(moved bool, cause link.Cause) *ending {
	if end := a.complete(); end != nil {
		return end
	}
	switch {
	case a.blame.deaths >= a.cfg.MaxWorkerDeaths:
		return &ending{err: wire.Errorf(wire.CodePoison,
			"stopped after %d workers in a row died serving this stream; the last: %s", a.blame.deaths, cause)}
	case a.blame.differed >= maxDiffered:
		return &ending{err: wire.Errorf(wire.CodeNotContinued, "%d engines in a row would have gone on with another text", a.blame.differed)}
	case moved && a.blame.moved() > a.cfg.MaxSwapsPerMinute:
		return &ending{err: wire.Errorf(wire.CodeSwapLimit,
			"the stream was moved %d times within a minute", a.cfg.MaxSwapsPerMinute)}
	case a.deps.Clock.Since(a.unassigned) >= a.cfg.Handover.WorkerWait:
		return a.nobodyCame()
	}
	return nil
}

// complete returns how a stream ends of which only the present worker's last word is missing; nil if there may be more
// to generate.
func (a *assignment) complete() *ending {
	switch length, finish := a.stream.Log.Len(), a.stream.Log.Finish(); {
	case finish != "":
		return &ending{finish: finish}
	case a.lateEnd != nil && a.lateEnd.GetTokens() == length:
		return endingOf(a.lateEnd)
	case a.stream.Log.Complete():
		return &ending{finish: "length"}
	}
	return nil
}

// endingOf returns how a stream ends that its worker has ended.
func endingOf(m *wirepb.End) *ending {
	return &ending{finish: m.GetFinishReason(), reasons: m.GetFinishReasons(), usage: m.GetUsage()}
}

// nobodyCame is the ending of a stream that waited for a worker as long as it may.
func (a *assignment) nobodyCame() *ending {
	return &ending{err: wire.Errorf(wire.CodeNoWorker,
		"no worker took the stream within %v", a.cfg.Handover.WorkerWait)}
}

// undone returns the event that ends a handover whose target is given up.
func undone(cause link.Cause) migration.Event {
	switch cause { //nolint:exhaustive // all others mean that the target is gone
	case link.CauseDiverged:
		return migration.Mismatch
	case link.CauseAttach, link.CauseStuck:
		return migration.TimedOut
	}
	return migration.TargetLost
}

// Cut makes the target of a planned handover the attempt that the stream depends on; see handover.Owner. From here the
// stream has no serving attempt until the target's first token is there.
func (a *assignment) Cut(source, target *attempt.Attempt) (credit, cut uint64, ok bool) {
	if credit, cut, ok = a.depends.cut(source, target); ok {
		a.serving = nil
		a.states.Cut(cut)
		a.unassigned, a.waitAnnounced, a.blame.began = a.deps.Clock.Now(), false, cut
	}
	return credit, cut, ok
}

// Serve is part of handover.Owner.
func (a *assignment) Serve(target *attempt.Attempt, m wire.Message) (gap time.Duration, ok bool) {
	if gap, ok = a.depends.serve(target, m); ok {
		a.stream.Began = target.Model().Fingerprint
	}
	return gap, ok
}

// Show is part of handover.Owner.
func (a *assignment) Show(h *handover.Handover) {
	a.view.moves(h)
	a.deps.Events.Publish(event.HandoverEntered{Stream: a.view.key(), Handover: h.Kind.String(), State: h.State().String()})
}

// end ends the handover under way, if there is one, with the event that says why.
func (a *assignment) end(event migration.Event, reason string) {
	if a.handover != nil {
		a.handover.End(event, reason)
		a.finishHandover()
	}
}

// finishHandover draws the conclusions of a handover that is over; while one is under way it does nothing.
func (a *assignment) finishHandover() {
	h := a.handover
	if h == nil || !h.Over() {
		return
	}
	a.handover = nil
	a.depends.plans(nil)
	r := h.Record()
	switch {
	case h.State() == migration.Completed:
		a.deps.Placement.HandoverEnded(h.Place)
		a.serve(h, r)
	case a.serving != nil: // it stays where it was
		a.states.Serving(a.serving)
	}
	a.runAlong()
	r.ConnectionID, r.StreamID = a.view.who.ConnectionID, a.view.who.StreamID
	a.deps.Events.Publish(event.HandoverEnded{Stream: a.view.key(), Record: r})
	if h.Plan != nil && h.Plan.Done != nil {
		h.Plan.Done(r)
	}
}

// serve makes the target of a handover the serving attempt, as the client has been told.
func (a *assignment) serve(h *handover.Handover, r migration.Record) {
	a.serving = h.Target
	a.states.Serving(a.serving)
	a.view.serve(a.serving.Model(), a.serving.Pledge, h.Kind)
	if h.Kind == migration.Placement {
		a.deps.Events.Publish(event.StreamPlaced{
			Stream: a.view.key(), Worker: r.To, Epoch: r.Epoch, WaitMS: milliseconds(time.Since(a.view.started)),
		})
		return
	}
	a.deps.Events.Publish(event.StreamMoved{
		Stream: a.view.key(), Worker: r.To, FromWorker: r.From, Swap: r.Kind, Cause: r.Cause, Sequence: r.Cut + 1, Epoch: r.Epoch,
		GapMS: milliseconds(h.Gap),
	})
}

// release ends the handover under way, and takes the stream back from its worker.
func (a *assignment) release() {
	a.depends.close()
	a.end(migration.Cancelled, hasEnded)
	a.dropAlong(false)
	a.states.Stop()
	if a.serving != nil {
		a.serving.Leave()
		a.serving = nil
	}
	if a.depends.own != nil { // the owner alone changes it
		a.deps.Placement.Release(a.depends.own)
	}
}

// check ends what took too long, and returns why the stream has to end for that, or nil. Time in which this process was
// stopped or starved does not count (see clock.StallProof).
func (a *assignment) check() *ending {
	if a.sourceServes() {
		a.handover.Check()
		a.finishHandover()
	}
	a.states.Check()
	a.runAlong()
	if a.remaining() > 0 {
		return nil
	}
	switch h := a.handover; {
	case a.serving != nil:
		return a.stuck()
	case h.State() == migration.Initiating:
		a.end(migration.TimedOut, "no worker in time")
		return a.nobodyCame()
	case h.State() == migration.Verifying:
		return a.lose(link.CauseStuck, nil)
	default:
		return a.lose(link.CauseAttach, nil)
	}
}

// stuck moves a stream whose worker is healthy but produces nothing for it. If there is nowhere to go it waits where it
// is, for as long as it would wait for a worker; then it begins anew, on the same one if need be. One that is complete
// needs nobody.
func (a *assignment) stuck() *ending {
	elsewhere := a.view.Need()
	elsewhere.Avoid = a.serving.Link.Worker()
	if a.complete() == nil && !a.deps.Placement.Alternative(elsewhere) && -a.remaining() < a.cfg.Handover.WorkerWait {
		return nil
	}
	a.blame.stuck()
	return a.lose(link.CauseStuck, nil)
}

// remaining returns how much stall-proof time remains for what the stream waits for: a state of the handover, or the
// next token. It is negative once the time is over.
func (a *assignment) remaining() time.Duration {
	if a.serving == nil {
		return a.handover.Remaining()
	}
	limits := a.cfg.Tokens
	limits.TokenMin = max(limits.TokenMin, a.serving.Link.Lateness())
	return a.stream.Log.Silence(limits, a.blame.factor)
}

// nextCheck returns when to look at the time again: tokens move the deadline without waking the owner, and the
// first ones bring it nearer. A deadline that has passed without effect is looked at again now and then.
func (a *assignment) nextCheck() time.Duration {
	wait := a.remaining()
	if wait <= 0 {
		wait = a.cfg.Tokens.TokenMin
	}
	if a.sourceServes() {
		wait = min(wait, a.handover.Remaining(), handover.TokenPause)
	}
	if a.stream.Request.GetStandby() {
		wait = min(wait, followEvery)
	}
	return max(clock.Tick, min(wait, a.cfg.Tokens.TokenMin))
}

// calm reports whether the stream only has to go on, and has time enough that a glance now and then is all it needs.
func (a *assignment) calm() bool {
	return a.serving != nil && a.handover == nil && !a.stream.Request.GetStandby() && a.states.Idle() && a.remaining() > a.cfg.calm()
}
