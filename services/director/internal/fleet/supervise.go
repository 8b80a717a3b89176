package fleet

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/telemetry"
)

// worker is a registered process. Its supervisor, one goroutine, owns the link to it.
type worker struct {
	link.Peer

	stop context.CancelCauseFunc // ends the supervisor
	done chan struct{}           // closed when the supervisor has ended

	// The fields below are guarded by Fleet.mu.
	registrations int        // MGMT connections on which it is registered
	leaving       bool       // its supervisor ends: whoever comes now is new
	heartbeat     time.Time  // last one
	reported      int        // streams on it, by its own count
	link          *link.Link // nil while down
	toldDrained   bool       // the worker has said or was told that it is drained, and may remember that still
	unreachable   string     // why the newest try to connect failed; empty while the link is up, and before the first try
}

var errUnregistered = link.Lost(link.CauseClosed, errors.New("no longer registered"))

const (
	firstBackoff = 20 * time.Millisecond
	lastBackoff  = 500 * time.Millisecond
	steady       = time.Second // a link that held for less is not dialled again in a hurry

	// A worker that stays registered although nobody reaches it is complained about: at once if it never was connected,
	// otherwise after the time in which a registration of a dead worker lapses, and then now and again.
	complainAfter = 10 * time.Second
	complainEvery = time.Minute
)

// supervise dials w, again and again, until ctx ends, or until w is no longer registered and its link is lost.
func (f *Fleet) supervise(ctx context.Context, w *worker) {
	defer close(w.done)
	log := f.log.With(zap.String("worker", w.Label), telemetry.Often(w.UserAddr))
	backoff := firstBackoff
	complainAt := time.Now()
	for ctx.Err() == nil {
		l := link.New(f.cfg, f.deps.Dialer, owner{f, w}, f.peer(w), f.log)
		dialled := time.Now()
		up, err := l.Run(ctx)
		if up && time.Since(dialled) > steady {
			backoff = firstBackoff
		}
		if ctx.Err() != nil || f.forget(w) {
			break
		}
		if up {
			complainAt = time.Now().Add(complainAfter)
		} else {
			f.failed(w, err)
		}
		if !up && !time.Now().Before(complainAt) {
			complainAt = time.Now().Add(complainEvery)
			log.Warn("registered worker cannot be reached; are its USER address and port, UDP, right and open?",
				zap.String("address", w.UserAddr), zap.Error(err))
		}
		log.Debug("link is down", zap.Error(err), zap.Duration("redial_in", backoff))
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
	}
	f.remove(w)
	log.Info("worker left", zap.String("instance", w.Instance), zap.NamedError("reason", context.Cause(ctx)))
}

// peer is what a worker has said of itself.
func (f *Fleet) peer(w *worker) link.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return w.Peer
}

// forget dismisses w if no MGMT connection is left on which it is registered, and reports whether it did.
func (f *Fleet) forget(w *worker) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.registrations > 0 {
		return false
	}
	w.dismiss(errUnregistered)
	return true
}

// failed records why a worker cannot be reached.
func (f *Fleet) failed(w *worker, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.unreachable = err.Error()
}

// dismiss ends the worker's supervisor. Fleet.mu is locked.
func (w *worker) dismiss(reason error) {
	w.leaving = true
	w.stop(reason)
}

// remove takes a worker out whose supervisor ends, unless its label has another one already.
func (f *Fleet) remove(w *worker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models.count(w.Models, -1)
	if f.workers[w.Label] == w {
		delete(f.workers, w.Label)
		f.unattended(w.Label, time.Now())
	}
}
