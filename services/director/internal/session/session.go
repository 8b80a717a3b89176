// Package session is the owner of one stream: it decides what happens next, and never touches a token. Tokens go from the link's reader into the
// stream's log, and from there to the client's leg; how the stream moves from worker to worker is the affair of package handover.
package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config bounds what a session may cost and how long it waits. All times are stall-proof.
type Config struct {
	MaxBytes          int // of text, of the whole stream
	Window            int // tokens that a worker may send ahead of what the client took
	ClientStall       time.Duration
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
	Swaps       func(migration.Record) // called once for each handover that is over, placements aside
	Tokens      *token.Issuer
	Checkpoints checkpoint.Store
	Turns       *checkpoint.Turns
}

// Leg carries a stream to its client, from the stream's log. It tells the session ClientLeft and ClientRead.
type Leg interface {
	// Push hands what is new in the log to the client. It never blocks.
	Push()
	// Stalled returns for how long the client has taken nothing of what waits for it, in stall-proof time.
	Stalled() time.Duration
	// Close ends the leg: in order if err is nil, since all has been taken; else the client's stream breaks off. Nothing of the leg runs any more when it
	// returns.
	Close(err error)
}

// Open returns the leg of a new stream. What it tells goes to the function.
type Open func(log *stream.Log, tell func(event any)) Leg

// ErrClientStalled closes the leg to a client that read nothing for too long: an error frame could not be written.
var ErrClientStalled = wire.Errorf(wire.CodeClientStall, "client read nothing for too long")

// errLeft closes the leg to a client that nothing reaches any more.
var errLeft = wire.Errorf(wire.CodeCancelled, "the client has gone")

// Session is one stream. Run is its owner.
type Session struct {
	cfg     Config
	deps    Deps
	log     *zap.Logger
	started time.Time
	inbox   inbox
	stream  *attempt.Stream
	record  *stream.Log
	leg     Leg
	depends dependence
	view    view

	// Owned by Run. Without serving and handover the stream is over.
	serving    *attempt.Attempt   // nil while none serves the stream
	handover   *handover.Handover // under way, or nil
	states     *checkpoint.Keeper
	blame      blame
	reported   *attempt.Attempt // of which the placement knows how it went
	unassigned time.Duration    // stall-proof time at which the stream was left without a worker
	told       bool             // the client knows that it waits
	over       bool             // the last frame is in the log, or nobody wants it
	delivered  bool             // and the client's connection has taken it
}

// New returns a session that has not begun. Run begins it.
func New(who Identity, request *wirepb.Request, open Open, cfg Config, deps Deps) *Session {
	s := &Session{
		cfg: cfg, deps: deps, started: time.Now(), inbox: newInbox(), blame: blame{factor: 1},
		log: deps.Log.With(zap.String("connection.id", who.ConnectionID), zap.Uint64("stream.id", who.StreamID)),
	}
	s.record = stream.New(stream.Config{MaxBytes: cfg.MaxBytes, MaxTokens: uint64(request.GetMaxTokens()), Window: cfg.Window, Progress: minProgress},
		deps.Clock, func(n stream.Notice) { s.inbox.put(n) })
	s.leg = open(s.record, s.tell)
	s.depends.log, s.depends.post = s.record, s.inbox.put
	s.stream = &attempt.Stream{
		ID: who.ID, Connection: who.Connection, ConnectionID: who.ConnectionID, StreamID: who.StreamID, Request: request,
		Log: s.record, Tokens: deps.Tokens, Push: s.leg.Push, Post: s.tell,
	}
	s.states = checkpoint.NewKeeper(s.stream, cfg.Checkpoint, checkpoint.Deps{
		Store: deps.Checkpoints, Turns: deps.Turns, Peer: deps.Placement.Peer, Clock: deps.Clock, Log: s.log,
	}, func(f func()) bool { return s.inbox.put(f) })
	return s
}

// tell tells the owner, if there still is one.
func (s *Session) tell(event any) { s.inbox.put(event) }

// Run serves the stream to its end. It returns when nothing of the session runs any more.
func (s *Session) Run(ctx context.Context) {
	timer := time.NewTimer(clock.Tick)
	defer timer.Stop()
	s.unassigned = s.deps.Clock.Now()
	s.move(s.place(""), "")
	err := s.serve(ctx, timer)
	s.release()
	s.leg.Close(err)
}

// serve is the loop of the owner. Its error is that for the leg.
func (s *Session) serve(ctx context.Context, timer *time.Timer) error {
	for !s.over || !s.delivered {
		select {
		case <-ctx.Done():
			s.left(context.Cause(ctx), "the connection ended", "")
			return errLeft
		case <-s.inbox.ready:
			left := false
			for _, event := range s.inbox.take() { // all: some wait for an answer
				left = s.handle(event) || left
			}
			if left {
				return errLeft
			}
		case <-timer.C:
			if s.leg.Stalled() >= s.cfg.ClientStall {
				s.log.Warn("client read nothing for too long", zap.Duration("limit", s.cfg.ClientStall))
				s.view.end(Failed, string(wire.CodeClientStall))
				return ErrClientStalled
			}
		}
		s.checkTime()
		timer.Reset(s.nextCheck())
	}
	return nil
}

// release takes the session back from wherever it is.
func (s *Session) release() {
	s.record.Fence()
	s.view.end(Cancelled, "the connection ended")
	s.over = true
	s.leave()
	s.states.Gone()
	for _, event := range s.inbox.close() { // what came too late is answered
		switch e := event.(type) {
		case planned:
			s.begin(e.Plan)
		case decided:
			s.decide(e)
		}
	}
}

// leave ends the handover under way, and takes the stream back from its worker.
func (s *Session) leave() {
	s.depends.close()
	if s.handover != nil {
		s.handover.End(migration.Cancelled, hasEnded)
		s.settle()
	}
	s.states.Stop()
	if s.serving != nil {
		s.serving.Leave()
		s.serving = nil
	}
	if s.depends.own != nil { // the owner alone changes it
		s.deps.Placement.Release(s.depends.own)
	}
}

// handle acts on one event, and reports whether the client is gone.
func (s *Session) handle(event any) (left bool) {
	switch e := event.(type) {
	case ClientLeft:
		return s.clientLeft(e)
	case ClientRead:
		if s.serving != nil {
			s.serving.Grant()
		}
	case planned:
		s.begin(e.Plan)
	case decided:
		s.decide(e)
	case stream.Notice:
		s.notice(e)
	default:
		if !s.over {
			s.react(event)
		}
	}
	s.settle()
	return false
}

// react acts on what happened to a stream that goes on.
func (s *Session) react(event any) {
	switch e := event.(type) {
	case granted:
		s.granted(e)
	case waiting:
		s.waiting(e)
	case lost:
		s.lost(e)
	case attempt.Begun:
		if s.targets(e.Attempt) && !s.handover.Begun(e.M) {
			s.lose(link.CauseDiverged, nil)
		}
	case attempt.Ended:
		s.ended(e)
	case attempt.Failed:
		s.failed(e)
	case attempt.Prepared:
		if m := e.TakePrepared(); s.targets(e.Attempt) {
			s.handover.Prepared(m)
		}
	case attempt.Captured:
		m := e.TakeCaptured()
		if s.handover == nil || e.Attempt != s.serving || !s.handover.Captured(m) {
			s.states.Captured(e.Attempt, m)
		}
	case rollback:
		if s.handover != nil && s.handover.SourceServes() && s.handover.Plan() == e.of {
			s.handover.End(migration.Cancelled, e.reason)
		}
	case func():
		e()
	}
}

// notice acts on what the log says.
func (s *Session) notice(n stream.Notice) {
	if n.Kind == stream.Delivered {
		s.delivered = true
		return
	}
	current := s.present()
	if s.over || current == nil || current.Epoch != n.Epoch {
		return
	}
	switch n.Kind { //nolint:exhaustive // see above
	case stream.Broken:
		s.lose(link.CauseProtocol, nil)
	case stream.Full:
		s.finish("length")
	case stream.Progressed:
		s.report(current, true)
	case stream.First:
		if s.targets(current) {
			s.handover.Verified()
		}
	case stream.Awaited:
		if s.handover != nil {
			s.handover.Cut()
		}
	}
}

// present returns the attempt that the stream depends on: the serving one, or the one that it is moving to; nil if there is none.
func (s *Session) present() *attempt.Attempt {
	if s.serving == nil && s.handover != nil {
		return s.handover.Target()
	}
	return s.serving
}

// targets reports whether an attempt is the target of the handover under way.
func (s *Session) targets(a *attempt.Attempt) bool {
	return s.handover != nil && s.handover.Target() == a
}

func (s *Session) clientLeft(e ClientLeft) bool {
	how, words := "the client is gone", "client gone"
	if e.Cancelled {
		how, words = "cancelled by the client", "stream cancelled by the client"
	}
	s.left(e.Err, how, words)
	s.over = true
	return true
}

// left ends the session of a client that has left, since its stream or its connection ended in cause. Whoever said no goodbye is lost, whatever the words
// say.
func (s *Session) left(cause error, how, words string) {
	if wire.LostPeer(cause) {
		how, words = "client lost", "stream ends: client lost"
	}
	if words != "" {
		s.log.Info(words, zap.Uint64("sequence", s.record.Len()), zap.NamedError("reason", cause))
	}
	s.view.end(Cancelled, how)
}

func (s *Session) granted(e granted) {
	h := s.handover
	if h == nil || h.Place() != e.place || h.State() != migration.Initiating || !s.deps.Placement.Holds(e.place, e.link) {
		return // what was released meanwhile is free already; the loss of what is lost already is on its way
	}
	if !h.SourceServes() {
		s.depends.on(e.place, e.link)
		s.blame.began = s.record.Len()
	}
	h.Granted(e.link)
}

func (s *Session) waiting(e waiting) {
	h := s.handover
	if s.told || h == nil || h.Place() != e.place || h.SourceServes() || h.State() != migration.Initiating {
		return
	}
	s.told = true
	s.log.Info("waiting for a worker", zap.String("reason", e.reason))
	s.view.wait()
	s.record.Mark(&wirepb.Waiting{Reason: e.reason, TimeoutMs: uint64(max(0, h.Remaining()).Milliseconds())})
	s.leg.Push()
}

// lost acts on the loss of a worker's link.
func (s *Session) lost(e lost) {
	switch h := s.handover; {
	case s.serving != nil && s.serving.Place == e.place:
		s.lose(e.cause, e.place)
	case h == nil || h.Place() != e.place:
	case h.SourceServes():
		h.TargetLost(string(e.cause))
	case h.Target() != nil:
		s.lose(e.cause, e.place)
	}
}

// ended ends the stream, if the worker ended it where the log ends.
func (s *Session) ended(e attempt.Ended) {
	if s.targets(e.Attempt) {
		if s.handover.SourceServes() {
			s.handover.End(migration.TargetLost, "the target ended the stream before it had it")
			return
		}
		s.handover.Verified() // there was nothing left to generate
		s.settle()
	}
	if s.present() != e.Attempt {
		return
	}
	digest, tokens := s.record.Digest()
	if s.serving == nil || e.M.GetTokens() != tokens || !digest.Equal(e.M.GetDigest()) {
		s.log.Error("worker's end differs from the journal", zap.Uint64("tokens", e.M.GetTokens()), zap.Uint64("sequence", tokens))
		s.lose(link.CauseDiverged, nil)
		return
	}
	s.finish(e.M.GetFinishReason())
}

// failed acts on a worker's word that it cannot go on, or does not want to begin.
func (s *Session) failed(e attempt.Failed) {
	if s.targets(e.Attempt) && s.handover.SourceServes() {
		s.handover.Failed(e.Code, e.Message)
		return
	}
	if s.present() != e.Attempt {
		return
	}
	level, what, cause := zap.InfoLevel, "worker declined", link.CauseDeclined
	if !e.Declined {
		level, what, cause = zap.WarnLevel, "engine failed", link.CauseEngine
	} else if e.Code == wire.CodeDiverged {
		cause = link.CauseDiverged
	}
	s.log.Log(level, what, zap.String("worker", e.Link.Worker()), zap.String("code", string(e.Code)), zap.String("reason", e.Message))
	if e.Code == wire.CodeInvalid {
		s.fail(wire.Errorf(e.Code, "%s", e.Message))
		return
	}
	s.lose(cause, nil)
}

// finish ends the stream in completion.
func (s *Session) finish(reason string) {
	if s.serving != nil {
		s.report(s.serving, true)
	}
	digest, tokens := s.record.Digest()
	swaps := s.view.swapped()
	s.end(&wirepb.Done{FinishReason: wire.Text(reason), Tokens: tokens, Swaps: swaps, Digest: digest[:]}, Done, reason)
	s.log.Info("stream done", zap.String("finish_reason", reason), zap.Uint64("tokens", tokens), zap.Uint32("swaps", swaps))
}

// fail ends the stream in an explicit error.
func (s *Session) fail(err *wire.Error) {
	s.end(err.Proto(), Failed, string(err.Code))
	s.log.Warn("stream ended in an error", zap.Error(err))
}

// end ends the stream with its last frame.
func (s *Session) end(last wire.Message, state State, reason string) {
	s.over = true
	s.record.Close(last)
	s.leg.Push()
	s.view.end(state, reason)
	s.leave()
}
