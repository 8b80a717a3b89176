package handover

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Along is an attempt that runs along: its worker makes the text beside the one that serves the stream, is brought what that has made,
// and goes on as soon as it is lost. Of all that takes time in a failover only the noticing is left. The goroutine of the stream's owner
// is the only one to call it.
type Along struct {
	Place  *placement.Request
	Target *attempt.Attempt // nil until the place is granted

	deps    Deps
	source  *attempt.Attempt
	standby standby
	ready   bool // the target has said up to where it has the stream
}

// NewAlong returns an attempt beside source, which has a place once that is granted.
func NewAlong(source *attempt.Attempt, place *placement.Request, deps Deps) *Along {
	return &Along{Place: place, deps: deps, source: source}
}

// Start asks for the place.
func (a *Along) Start() { a.deps.Places.Queue(a.Place) }

// Granted gives the attempt its place.
func (a *Along) Granted(l *link.Link) {
	a.Target = attempt.New(a.deps.Stream, a.Place, l, a.deps.Stream.NextEpoch())
	a.Target.Latency = a.deps.Places.Latency(l)
	a.standby = standby{source: a.source, target: a.Target, log: a.deps.Log, along: true}
	a.standby.open()
	a.deps.Log.Info("a standby runs along", zap.String("worker", l.Worker()), zap.Uint64("epoch", a.Target.Epoch))
}

// Worker returns the label of the attempt's worker; empty while it has none that is ready.
func (a *Along) Worker() string {
	if a == nil || !a.ready {
		return ""
	}
	return a.Target.Link.Worker()
}

// Prepared acts on the target's word up to where it has the stream. A word from beyond the log is not believed.
func (a *Along) Prepared(m *wirepb.Prepared) {
	if m.GetSequence() > a.Target.Log.Len() {
		return
	}
	a.standby.prepared, a.standby.asked = m.GetSequence(), false
	if !a.ready {
		a.ready = true
		a.deps.Places.HandoverEnded(a.Place) // from here on it is no move under way
	}
}

// Follow brings the target what has come, if it has taken what it was brought before. To be called now and then: what the target
// lacks in the end travels with the order to go on.
func (a *Along) Follow() {
	switch {
	case a.Target == nil:
	case a.standby.late:
		a.standby.open()
	case a.ready && !a.standby.asked && a.Target.Log.Len() > a.standby.prepared:
		a.standby.asked = true
		a.standby.feed()
	}
}

// Drop takes the attempt back; lost says that the worker is gone, and the place with it.
func (a *Along) Drop(lost bool) {
	if a.Target != nil && !lost {
		a.Target.Leave()
		for _, one := range []*attempt.Attempt{a.source, a.Target} {
			one.Link.Send(&wirepb.Revoke{Session: one.ID, Epoch: a.Target.Epoch})
		}
	}
	if !lost {
		a.deps.Places.Release(a.Place)
	}
}

// Yield returns the target of a planned handover whose source is lost before the cut, if the target has opened the stream: it can go on
// from where it is. The handover then leaves it alone. It is nil if there is no such target.
func (h *Handover) Yield() *Along {
	if h == nil || !h.SourceServes() || h.State() < migration.CapturingState || h.Target.Stateful() {
		return nil
	}
	h.yielded = true
	return &Along{Place: h.Place, Target: h.Target, deps: h.deps, source: h.source, standby: h.standby, ready: true}
}

// NewPromoted returns the failover from a worker that is lost for a cause to the one that runs along, which may send up to credit: the
// stream depends on it already.
func NewPromoted(from, cause string, along *Along, credit uint64, unassigned time.Duration, cfg Config, deps Deps) *Handover {
	h := New(from, cause, along.Place, unassigned, cfg, deps)
	h.Target, h.To, h.Epoch = along.Target, along.Target.Link.Worker(), along.Target.Epoch
	h.standby, h.promoted, h.credit = along.standby, true, credit
	return h
}

// promote has the target that runs along go on.
func (h *Handover) promote() (migration.Event, bool) {
	h.standby.pivot(h.credit)
	return 0, false
}
