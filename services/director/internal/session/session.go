// Package session is the owner of one stream: it decides what happens next, and never touches a token. Tokens go from
// the link's reader into the stream's log, and from there to the client's leg; how the stream moves from worker to
// worker is the affair of package handover.
package session

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config bounds what a session may cost and how long it waits. All times are stall-proof.
type Config struct {
	MaxBytes          int // of text, of the whole stream
	Window            int // tokens that a worker may send ahead of what the client took
	ClientStall       time.Duration
	ResumeWait        time.Duration // that a client may be away, and find its stream when it comes back; 0 for not at all
	Tokens            stream.Timeouts
	MaxSwapsPerMinute int
	MaxWorkerDeaths   int
	Handover          handover.Config
	Checkpoint        checkpoint.Config
}

// Deps is what a session needs from outside.
type Deps struct {
	Placement   *placement.Placement
	Clock       *clock.StallProof
	Log         *zap.Logger
	Events      *event.Bus     // optional
	Stalls      *atomic.Uint64 // optional; counts workers that had to wait for a client to read
	Tokens      *token.Issuer
	Checkpoints checkpoint.Store
	Limiter     *checkpoint.Limiter
}

// Session is one stream, from its request to its end. The goroutine of Run owns it: nobody else decides anything about
// the stream. All others put events into the inbox (the leg, the link's readers, placement, operators), or read the
// View, or, for the tokens, write to and read from the log, which has a lock of its own.
//
// What must hold: the stream ends once, with one last frame in the log (close), or because nobody is left to read it;
// and when Run returns, no worker has the stream and no request for a place remains.
type Session struct {
	View
	assignment assignment // which worker has the stream; owned by Run

	cfg    Config
	log    *zap.Logger
	inbox  inbox
	record *stream.Log
	legs   legs

	calm   atomic.Bool // the owner sleeps until it is told something: glance looks at the time for it
	unread atomic.Bool // placement knows that the client reads nothing
	short  atomic.Bool // others need what this one has: its client gets less patience

	// Owned by Run.
	over      bool // the last frame is in the log, or nobody wants it: no worker is wanted any more
	delivered bool // the client has all; as far as it says so, else its connection has
}

// New returns a session that has not begun. Run begins it.
func New(who Identity, request *wirepb.Request, memory stream.Memory, open Open, cfg Config, deps Deps) *Session {
	s := &Session{
		View: View{who: who, priority: request.GetPriority(), started: time.Now(), resumed: wire.ContinuityExact}, cfg: cfg, inbox: newInbox(),
		log: deps.Log.With(zap.String("connection.id", who.ConnectionID), zap.Uint64("stream.id", who.StreamID),
			telemetry.Often(who.Address)),
	}
	limits := stream.Config{
		MaxBytes: cfg.MaxBytes, MaxTokens: uint64(request.GetMaxTokens()), Choices: request.GetChoices(), Release: releaseOf(request), Window: cfg.Window, Progress: minProgress,
		Memory: memory, Stalls: deps.Stalls,
	}
	s.record = stream.New(limits, deps.Clock, func(n stream.Notice) { s.tell(n) })
	s.View.log = s.record
	s.legs.clock = deps.Clock
	s.legs.open(s.record, open, s.tell)
	a := &s.assignment
	a.cfg, a.deps, a.log, a.view, a.blame.factor = cfg, deps, s.log, &s.View, 1
	a.depends.log, a.depends.post = s.record, s.inbox.put
	a.named(request.GetModel())
	a.stream = &attempt.Stream{
		ID: who.ID, Connection: who.Connection, ConnectionID: who.ConnectionID, StreamID: who.StreamID,
		Request: request, Log: s.record, Tokens: deps.Tokens, Leg: &s.legs, Post: s.tell,
	}
	a.states = checkpoint.NewKeeper(a.stream, cfg.Checkpoint, checkpoint.Deps{
		Store: deps.Checkpoints, Limiter: deps.Limiter, Peer: deps.Placement.Peer, Clock: deps.Clock, Log: s.log,
	}, func(f func()) bool { return s.inbox.put(f) })
	return s
}

// releaseOf returns what must not be shown at once. Where there are several choices their stop strings are the engine's.
func releaseOf(r *wirepb.Request) stream.Release {
	if r.GetChoices() > 1 {
		return stream.Release{}
	}
	return stream.Release{Stop: r.GetStop()}
}

// tell gives an event to the owner, if there still is one. Any goroutine may call it; it never blocks.
func (s *Session) tell(event any) { s.inbox.put(event) }

// Run serves the stream to its end, or until ctx ends, whose cause says why. It returns when nothing of the session
// runs any more. Call it once.
func (s *Session) Run(ctx context.Context) {
	timer := time.NewTimer(clock.Tick)
	defer timer.Stop()
	defer s.assignment.deps.Clock.Every(s.cfg.calm()/2, s.glance)()
	events := s.assignment.deps.Events
	events.Publish(event.StreamOpened{Stream: s.key(), Model: s.Need().Model})
	s.assignment.begin()
	err := s.serve(ctx, timer)
	s.release()
	s.legs.close(err)
	last := s.Snapshot()
	events.Publish(event.StreamFinished{
		Stream: s.key(), State: string(last.State), Reason: last.Reason, Tokens: last.Sequence, Swaps: last.Swaps, Fenced: last.Fenced,
	})
}

// serve is the loop of the owner: it waits for events, for the end of the client's connection, and for what is due. It
// returns once the client has the last frame, or is given up. The error is the one for Leg.Close.
func (s *Session) serve(ctx context.Context, timer *time.Timer) error {
	for !s.over || !s.delivered {
		select {
		case <-ctx.Done():
			s.cancelled(context.Cause(ctx), "the connection ended", "")
			return errClientGone
		case <-s.inbox.ready:
			clientGone := false
			for _, event := range s.inbox.dequeue() { // all: some wait for an answer
				clientGone = s.handle(event) || clientGone
			}
			if clientGone {
				return errClientGone
			}
		case <-timer.C:
		}
		if patience := s.patience(); s.legs.Stalled() >= patience {
			return s.abandon(patience)
		}
		if unread := s.Unread(); unread != s.unread.Swap(unread) {
			s.assignment.read(!unread)
		}
		timer.Reset(s.checkTime())
		calm := !s.over && s.assignment.calm()
		if calm {
			timer.Stop()
		}
		s.calm.Store(calm)
	}
	return nil
}

// glance wakes the owner of a calm stream if its worker, or its client, may soon have been silent for too long. The
// clock's goroutine calls it. Most streams are calm most of the time: their owners sleep, and a token wakes none.
func (s *Session) glance() {
	if !s.calm.Load() {
		return
	}
	stalled := s.legs.Stalled()
	if s.record.Silence(s.cfg.Tokens, 1) <= s.cfg.calm() || stalled >= s.limit() || stalled >= Unread && !s.unread.Load() {
		s.inbox.wake()
	}
}

// Unread is how long a client reads nothing before others, who need it, are given what its stream has.
const Unread = time.Second

// Unread reports whether the stream's client has read nothing for that long.
func (s *Session) Unread() bool { return s.legs.Stalled() >= Unread }

// Yield ends the stream if it is Unread: others need what it has.
func (s *Session) Yield() {
	s.short.Store(true)
	s.inbox.wake()
}

// patience is how long the client may read nothing. Once it is short it is long again.
func (s *Session) patience() time.Duration {
	if s.short.Swap(false) {
		return min(Unread, s.limit())
	}
	return s.limit()
}

// limit is how long the client may read nothing, or be away.
func (s *Session) limit() time.Duration {
	if s.legs.away() {
		return s.cfg.ResumeWait
	}
	return s.cfg.ClientStall
}

// abandon ends the session of a client that has read nothing, or was away, for too long. It returns the error for
// Leg.Close.
func (s *Session) abandon(limit time.Duration) error {
	switch {
	case !s.legs.away():
		s.log.Warn("client read nothing for too long", zap.Duration("limit", limit))
		s.end(Failed, string(wire.CodeClientStall))
		return ErrClientStalled
	case s.end(Cancelled, "the client did not come back"):
		s.log.Info("client did not come back", zap.Duration("limit", limit), zap.Uint64("sequence", s.record.Len()))
	}
	return errClientGone
}

// checkTime ends what took too long, and returns in how long it has to be called again at the latest.
func (s *Session) checkTime() time.Duration {
	if !s.over {
		s.conclude(s.assignment.check())
	}
	next := s.cfg.Tokens.TokenMin
	if !s.over {
		next = s.assignment.nextCheck()
	}
	left := s.limit() - s.legs.Stalled() // for the client to take what waits for it, or to come back
	return max(clock.Tick, min(left, next))
}

// release gives back all that the session still has anywhere: the worker, the place, the checkpoints. What operators
// still ask is answered.
func (s *Session) release() {
	s.record.Fence()
	s.end(Cancelled, "the connection ended")
	s.over = true
	s.assignment.release()
	late := s.inbox.close() // what comes from now on finds nobody: a state that is brought is dropped
	s.assignment.states.Gone()
	for _, event := range late { // what came too late is answered
		switch e := event.(type) {
		case planned:
			s.plan(e.Plan)
		case decided:
			s.decide(e)
		case resumed:
			e.ok <- false
		}
	}
}

// handle acts on one event, and reports whether the client is gone.
func (s *Session) handle(event any) (clientGone bool) {
	switch e := event.(type) {
	case fromLeg:
		clientGone = e.carriage == s.legs.now.Load() && s.heard(e.event)
	case resumed:
		s.resume(e)
	case planned:
		s.plan(e.Plan)
	case decided:
		s.decide(e)
	case stream.Notice:
		s.notice(e)
	default:
		if !s.over {
			s.conclude(s.react(event))
		}
	}
	s.assignment.finishHandover()
	return clientGone
}

// heard acts on what the present leg tells, and reports whether the client is gone.
func (s *Session) heard(said any) (clientGone bool) {
	switch e := said.(type) {
	case ClientLeft:
		switch {
		case s.delivered: // who has everything may go
		case e.Cancelled || !s.who.Resumable || s.cfg.ResumeWait == 0:
			return s.clientLeft(e)
		default:
			s.legs.close(e.Err)
			s.View.leave()
			s.assignment.deps.Events.Publish(event.StreamAway{Stream: s.key(), Reason: e.Err.Error(), Sequence: s.record.Len()})
		}
	case ClientRead:
		if s.assignment.serving != nil {
			s.assignment.serving.Grant()
		}
	case Delivered:
		s.delivered = !s.who.Resumable || s.who.Kept
		s.legs.close(nil) // a client that may come back still has to say that it has read all
	}
	return false
}

// Acknowledge takes note that the client has read so many records of the stream: see stream.Log.
func (s *Session) Acknowledge(records uint64) { s.record.Acknowledge(records) }

// Stand returns the cursor at which a client stands that comes back, and the last token that there is; the error says why it
// cannot go on there.
func (s *Session) Stand(of stream.Stand) (at stream.Cursor, sequence uint64, err error) {
	at, err = s.record.Resume(of)
	return at, s.record.Len(), err
}

// Resume has the client go on over another leg, and returns false if the stream is over. What leg it had is closed.
func (s *Session) Resume(open Open) bool {
	e := resumed{open, make(chan bool, 1)}
	return s.inbox.put(e) && <-e.ok
}

func (s *Session) resume(e resumed) {
	away := s.View.back()
	s.legs.open(s.record, e.open, s.tell)
	s.assignment.deps.Events.Publish(event.StreamResumed{Stream: s.key(), AwayMS: milliseconds(away), Sequence: s.record.Len()})
	s.legs.Push()
	if s.assignment.serving != nil {
		s.assignment.serving.Grant()
	}
	e.ok <- true
}

// react acts on what happened to a stream that goes on, and returns why it does not any more, or nil.
func (s *Session) react(event any) *ending {
	a := &s.assignment
	switch e := event.(type) {
	case granted:
		a.granted(e)
	case waiting:
		a.waiting(e)
	case lost:
		return a.lost(e)
	case attempt.Progressing:
		a.progressing(e)
	case attempt.Begun:
		a.view.prompted(e.M.GetPromptTokens())
		e.Pledged(e.M)
		if a.targets(e.Attempt) && !a.handover.Begun(e.M) {
			return a.lose(link.CauseDiverged, nil)
		}
	case attempt.Ended:
		return s.ended(e)
	case attempt.Failed:
		return s.failed(e)
	case attempt.Prepared:
		switch m := e.TakePrepared(); {
		case a.targets(e.Attempt):
			a.handover.Prepared(m)
		case a.runsAlong(e.Attempt):
			a.along.Prepared(m)
			a.view.stands(a.along.Worker())
		}
	case attempt.Captured:
		m := e.TakeCaptured()
		if a.handover == nil || e.Attempt != a.serving || !a.handover.Captured(m) {
			a.states.Captured(e.Attempt, m)
		}
	case rollback:
		if a.sourceServes() && a.handover.Plan == e.of {
			a.handover.End(migration.Cancelled, e.reason)
		}
	case func():
		e()
	}
	return nil
}

// notice acts on what the log says. A notice about an attempt that has been left meanwhile means nothing any more; only
// Acknowledged is about the stream as a whole.
func (s *Session) notice(n stream.Notice) {
	if n.Kind == stream.Acknowledged {
		s.delivered = true
		return
	}
	a := &s.assignment
	current := a.present()
	if s.over || current == nil || current.Epoch != n.Epoch {
		return
	}
	switch n.Kind { //nolint:exhaustive // Acknowledged was handled above
	case stream.Broken:
		s.conclude(a.lose(link.CauseProtocol, nil))
	case stream.Full, stream.Stopped:
		s.conclude(a.complete())
	case stream.Starved:
		s.conclude(&ending{err: wire.Errorf(wire.CodeLimit, "the director has no memory left for this stream (DIRECTOR_MAX_BYTES)")})
	case stream.Progressed:
		a.report(current, true)
	case stream.First:
		if a.targets(current) {
			a.handover.Verified()
		}
	case stream.Awaited:
		if a.handover != nil {
			a.handover.CutOver()
		}
	}
}

// clientLeft ends the session of a client that wants the stream no more, or cannot be reached. It reports true: nothing
// is left to do.
func (s *Session) clientLeft(e ClientLeft) bool {
	how, words := "the client is gone", "client gone"
	if e.Cancelled {
		how, words = "cancelled by the client", "stream cancelled by the client"
	}
	s.cancelled(e.Err, how, words)
	s.over = true
	return true
}

// cancelled ends the session of a client that has gone, since its stream or its connection ended in cause. A client
// that said no goodbye is called lost, whatever the words say.
func (s *Session) cancelled(cause error, how, words string) {
	if wire.LostPeer(cause) {
		how, words = "client lost", "stream ends: client lost"
	}
	if s.end(Cancelled, how) && words != "" {
		s.log.Info(words, zap.Uint64("sequence", s.record.Len()), zap.NamedError("reason", cause))
	}
}

// ended acts on the worker's End. Only if the worker counts as many tokens as the log has, and has the same digest, the
// stream is complete; a worker that ends it elsewhere has diverged.
func (s *Session) ended(e attempt.Ended) *ending {
	a := &s.assignment
	if a.targets(e.Attempt) {
		if a.sourceServes() {
			a.handover.End(migration.TargetLost, "the target ended the stream before it had it")
			return nil
		}
		a.handover.Verified() // there was nothing more to generate
		a.finishHandover()
	}
	if s.record.Finish() != "" { // the worker did not know
		return a.complete()
	}
	digest, tokens := s.record.Digest()
	same := e.M.GetTokens() == tokens && digest.Equal(e.M.GetDigest())
	switch {
	case a.runsAlong(e.Attempt):
		a.alongFailed("it ended the stream before it had it", false)
		return nil
	case a.present() != e.Attempt:
		if same {
			a.lateEnd = e.M
		}
		return nil
	case a.serving == nil && !s.record.Expects(e.Epoch):
		// The worker was lost, or broke the protocol; the event that says so is on its way.
		return nil
	case a.serving == nil || !same:
		s.log.Error("worker's end differs from the log",
			zap.Uint64("tokens", e.M.GetTokens()), zap.Uint64("sequence", tokens))
		return a.lose(link.CauseDiverged, nil)
	}
	return endingOf(e.M)
}

// failed acts on a worker's word that it cannot go on, or does not begin. A request that no worker can serve ends the
// stream; anything else costs the stream this worker.
func (s *Session) failed(e attempt.Failed) *ending {
	a := &s.assignment
	if a.targets(e.Attempt) && a.sourceServes() {
		a.handover.Failed(e.Err.Code, e.Err.Message)
		return nil
	}
	if a.runsAlong(e.Attempt) {
		a.standbyFailed(e.Err)
		return nil
	}
	if a.present() != e.Attempt {
		return nil
	}
	cause := causeOf(e)
	level, what := zap.WarnLevel, "engine failed"
	if cause == link.CauseDeclined {
		level, what = zap.InfoLevel, "worker declined"
	}
	s.log.Log(level, what,
		zap.String("worker", e.Link.Worker()), zap.String("code", string(e.Err.Code)), zap.String("reason", e.Err.Message))
	if e.Err.Code == wire.CodeInvalid || e.Err.Code == wire.CodeNotContinued {
		return &ending{err: e.Err}
	}
	return a.lose(cause, nil)
}

// causeOf says what a worker's word means for the stream that it does not serve to the end.
func causeOf(e attempt.Failed) link.Cause {
	switch code := e.Err.Code; {
	case code == wire.CodeDiverged && e.Declined:
		return link.CauseDiverged
	case code == wire.CodeDiverged:
		return link.CauseDiffers
	case e.Declined, code == wire.CodeUnavailable, code == wire.CodeCapacity:
		return link.CauseDeclined
	}
	return link.CauseEngine
}

// conclude ends the stream, if there is a reason: in completion, or in an explicit error.
func (s *Session) conclude(e *ending) {
	switch {
	case e == nil:
	case e.err != nil:
		s.close(e.err.Proto(), Failed, string(e.err.Code))
		s.log.Warn("stream ended in an error", zap.Error(e.err))
	default:
		if a := &s.assignment; a.serving != nil {
			a.report(a.serving, true)
		}
		digest, tokens := s.record.Digest()
		swaps := s.swapped()
		done := &wirepb.Done{
			FinishReason: wire.Text(e.finish), Tokens: tokens, Swaps: swaps, Digest: digest[:],
			Usage: s.usageOf(e), FinishReasons: e.reasons, Continuity: s.continuity(),
		}
		s.close(done, Done, e.finish)
		s.log.Info("stream done",
			zap.String("finish_reason", e.finish), zap.Uint64("tokens", tokens), zap.Uint32("swaps", swaps))
	}
}

// usageOf is what a complete stream took: as the engine says or, where it was ended here, as far as that is known; nil where
// nobody knows what the prompt took.
func (s *Session) usageOf(e *ending) *wirepb.Usage {
	s.took(e.usage)
	prompt, completion := s.Usage()
	if e.usage != nil || prompt == 0 {
		return e.usage
	}
	return &wirepb.Usage{PromptTokens: prompt, CompletionTokens: completion}
}

// close ends the stream with its last frame, which the leg still has to deliver. The worker is left at once.
func (s *Session) close(last wire.Message, state State, reason string) {
	s.over = true
	s.record.Close(last)
	s.legs.Push()
	s.end(state, reason)
	s.assignment.release()
}
