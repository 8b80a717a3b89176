package session

import (
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// dependence is on which worker a stream depends: so its log is fenced on the goroutine that tells of the worker's
// loss, before any stream of that worker gets another place, and the owner learns of it afterwards. It is what
// placement sees of a session, and passes what placement says on to the owner's inbox.
//
// It is safe for concurrent use. The owner alone changes what the stream depends on; Lost only takes away. Placement
// calls it with none of its locks held; the lock here is held while the log's is taken, never the other way round.
type dependence struct {
	log  *stream.Log
	post func(event any) bool

	mu     sync.Mutex
	own    *placement.Request // of the attempt that serves the stream, or that it is moving to; nil before the first
	link   *link.Link         // at which own is, as far as the owner has acted on it; nil while it is nowhere
	target *placement.Request // of a planned handover before its cut, or of an attempt that runs along; nil if there is none
	kind   migration.Kind
	need   routing.Need // the model, and the fingerprint of the one that the stream began with; empty before that
	closed bool         // nothing more is wanted from any worker
}

var _ placement.Session = (*dependence)(nil)

// Granted passes a place on.
func (d *dependence) Granted(place *placement.Request, l *link.Link) { d.post(granted{place, l}) }

// Waiting passes on that there is no place.
func (d *dependence) Waiting(place *placement.Request, reason string) { d.post(waiting{place, reason}) }

// Lost fences the stream at once if it depends on the place that is lost, which then is wanted again. The target of a
// planned handover before its cut is no loss to the stream.
func (d *dependence) Lost(place *placement.Request, l *link.Link, cause link.Cause) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || place != d.own && place != d.target {
		return false
	}
	if place == d.own {
		if l == d.link {
			d.log.Fence()
			d.link = nil
		}
		place.Kind, place.Need = d.kind, d.need
		again = true
	} else {
		d.target = nil
	}
	d.post(lost{place, l, cause})
	return again
}

// on says which place the stream depends on, and the link at which it is; nil for none yet.
func (d *dependence) on(place *placement.Request, l *link.Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own, d.link = place, l
}

// serve makes the target, on which the stream depends, the one that serves it: see stream.Log. From the moment in which
// the client knows of it the stream has an engine, and whatever comes is no placement: the loss of the target falls
// before that, or after it.
func (d *dependence) serve(target *attempt.Attempt, m wire.Message) (gap time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if gap, ok = d.log.Serve(target.Epoch, target.Link.Worker(), m); ok {
		d.kind, d.need.Fingerprint, d.need.Portable = migration.Failover, target.Model().Fingerprint, target.Pledge.Portable
	}
	return gap, ok
}

// named says by name which model the stream is to have.
func (d *dependence) named(model string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.need.Model = model
}

// plans says which place a planned handover wants, or an attempt that runs along; nil for none.
func (d *dependence) plans(place *placement.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = place
}

// cut moves the dependence from source to target, and opens the log for the target, unless one of them is lost.
func (d *dependence) cut(source, target *attempt.Attempt) (credit, cut uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != source.Link || d.own != source.Place || d.target != target.Place {
		return 0, 0, false
	}
	if credit, cut, ok = d.log.Cut(source.Epoch, target.Epoch); ok {
		d.own, d.link, d.target = target.Place, target.Link, nil
	}
	return credit, cut, ok
}

// promote moves the dependence to a target that runs along, and opens the log for it, unless it is lost: then the event that says so
// is on its way.
func (d *dependence) promote(target *attempt.Attempt) (credit uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.target != target.Place {
		return 0, false
	}
	d.own, d.link, d.target = target.Place, target.Link, nil
	return d.log.Expect(target.Epoch), true
}

// close wants nothing more from any worker.
func (d *dependence) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}
