package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// This file is the attempt that runs along with a stream whose caller asked for that.

const (
	// followEvery is how often an attempt that runs along is brought what the stream has.
	followEvery = 250 * time.Millisecond
	// alongAgain is when another worker is asked after one was lost, or had another text; it doubles each time.
	alongAgain = time.Second
	// maxAlong bounds how often a stream is given another one.
	maxAlong = 8
)

// alongside is the attempt that runs along, if there is one. The session's goroutine owns it.
type alongside struct {
	*handover.Along
	ended int           // attempts that came to nothing
	from  time.Duration // stall-proof time from which on there may be another
}

// runAlong has a worker run along with the stream, if its caller asked for that, and follow it.
func (a *assignment) runAlong() {
	switch {
	case !a.stream.Request.GetStandby() || a.serving == nil || a.handover != nil || a.serving.Stateful():
	case a.along.Along != nil:
		a.along.Follow()
	case a.along.ended < maxAlong && a.deps.Clock.Now() >= a.along.from:
		place := a.request(placement.Request{Kind: migration.Planned, Need: routing.Need{Avoid: a.serving.Link.Worker()}})
		a.depends.plans(place)
		a.along.Along = handover.NewAlong(a.serving, place, a.handoverDeps())
		a.along.Start()
	}
	a.view.stands(a.along.Worker())
}

// runsAlong reports whether it is an attempt that runs along.
func (a *assignment) runsAlong(of *attempt.Attempt) bool {
	return a.along.Along != nil && a.along.Target == of
}

// dropAlong takes back the attempt that runs along, if there is one; lost says that its worker is gone.
func (a *assignment) dropAlong(lost bool) {
	if a.along.Along == nil {
		return
	}
	a.along.Drop(lost)
	a.along.Along = nil
	a.depends.plans(nil)
	a.view.stands("")
}

// alongFailed acts on the end of an attempt that ran along: another worker may do that.
func (a *assignment) alongFailed(reason string, lost bool) {
	a.log.Info("the standby no longer runs along", zap.String("worker", a.along.Worker()), zap.String("reason", reason))
	a.dropAlong(lost)
	a.along.from = a.deps.Clock.Now() + alongAgain<<a.along.ended
	a.along.ended++
}

// adopt takes the target of a planned handover whose source is lost for one that ran along; nil for none.
func (a *assignment) adopt(yielded *handover.Along) {
	if yielded == nil {
		return
	}
	a.dropAlong(false)
	a.along.Along = yielded
	a.depends.plans(yielded.Place)
}

// promote has the attempt that runs along go on, in place of a worker that is lost; false if there is none that can. queued is what
// placement has queued for the stream again, or nil.
func (a *assignment) promote(cause string, queued *placement.Request) bool {
	along := a.along.Along
	if along.Worker() == "" {
		return false
	}
	if queued != nil {
		a.deps.Placement.Release(queued)
	}
	credit, ok := a.depends.promote(along.Target)
	if !ok {
		return false
	}
	a.along.Along = nil
	a.view.stands("")
	a.blame.began = a.stream.Log.Len()
	a.handover = handover.NewPromoted(a.view.announced(), cause, along, credit, a.unassigned, a.cfg.Handover, a.handoverDeps())
	a.handover.Start()
	a.finishHandover()
	return true
}

// Forsake has the stream give up the attempt that runs along at a worker, if there is one: the worker is wanted empty.
func (s *Session) Forsake(worker string) {
	if !s.assignment.stream.Request.GetStandby() {
		return
	}
	s.tell(func() {
		if a := &s.assignment; a.along.Along != nil && a.along.Target != nil && a.along.Target.Link.Worker() == worker {
			a.alongFailed("its worker is drained", false)
		}
	})
}

// standbyFailed acts on the word of a worker that runs along that it cannot go on.
func (a *assignment) standbyFailed(err *wire.Error) { a.alongFailed(err.Error(), false) }
