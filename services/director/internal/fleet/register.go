package fleet

import (
	"context"
	"errors"
	"reflect"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Registration is one MGMT connection on which a worker is registered.
type Registration struct {
	fleet  *Fleet
	worker *worker
}

// Register makes a worker known, or refreshes what is known. A second live worker under the same label is
// refused with CodeLabelInUse; a newer instance of one that is gone, or does not answer, takes its place.
func (f *Fleet) Register(peer link.Peer) (*Registration, error) {
	for {
		f.mu.Lock()
		if f.ctx.Err() != nil {
			f.mu.Unlock()
			return nil, wire.Errorf(wire.CodeShutdown, "the director is shutting down")
		}
		old := f.workers[peer.Label]
		if err := f.mayHave(peer, old); err != nil {
			f.mu.Unlock()
			return nil, err
		}
		switch {
		case old == nil:
			w := f.add(peer)
			f.mu.Unlock()
			return &Registration{fleet: f, worker: w}, nil
		case old.leaving: // nothing may be hung on it any more
		case old.Instance == peer.Instance && old.link == nil && old.UserAddr != peer.UserAddr:
			old.dismiss(link.Lost(link.CauseBroken, errors.New("it has another address")))
		case old.Instance == peer.Instance:
			old.registrations++
			old.heartbeat = time.Now()
			old.toldDrained = old.toldDrained || peer.Drained
			f.sendDrainMark(old)
			l := f.remodel(old, peer)
			f.mu.Unlock()
			if l != nil {
				f.placement.Remodelled(l)
			}
			return &Registration{fleet: f, worker: old}, nil
		case old.link != nil && old.registrations > 0 && (old.Named || !peer.Named):
			f.mu.Unlock()
			return nil, wire.Errorf(wire.CodeLabelInUse,
				"another worker at %s is registered as %q; choose another CONNECTION_SWAP_WORKER_LABEL", old.UserAddr, peer.Label)
		default:
			old.dismiss(link.Lost(link.CauseReplaced, nil))
		}
		f.mu.Unlock()
		<-old.done // its streams are on their way elsewhere
	}
}

// remodel takes over which models a worker has now, and returns its link if they are others. f.mu is held.
func (f *Fleet) remodel(w *worker, now link.Peer) *link.Link {
	w.Server = now.Server
	if reflect.DeepEqual(w.Models, now.Models) {
		return nil
	}
	f.models.count(w.Models, -1)
	f.models.count(now.Models, +1)
	w.Models = now.Models
	f.log.Info("worker has other models", zap.String("worker", w.Label), zap.Strings("models", w.Names()), telemetry.Often(w.UserAddr))
	if w.link != nil {
		w.link.SetModels(now.Models)
	}
	return w.link
}

// mayHave returns why a worker may not have a label, which another one may have that lives: nobody takes it from a worker whose
// certificate names it, but with such a certificate; and of certificates that name nobody each is good for so many labels. f.mu
// is held.
func (f *Fleet) mayHave(peer link.Peer, old *worker) error {
	if peer.Named {
		return nil
	}
	if old != nil && old.Named && !old.leaving {
		return wire.Errorf(wire.CodeLabelInUse,
			"worker %q has a certificate that names it, and lives; this one's names nobody", peer.Label)
	}
	labels := 0
	for _, w := range f.workers {
		if w.Label != peer.Label && !w.Named && w.Certificate == peer.Certificate {
			labels++
		}
	}
	if most := f.deps.LabelsPerCertificate; most > 0 && labels >= most {
		return wire.Errorf(wire.CodeLimit, "%d workers are registered with this certificate, which names nobody"+
			" (CONNECTION_SWAP_DIRECTOR_MAX_LABELS_PER_CERTIFICATE); give each one that names it", labels)
	}
	return nil
}

// add starts a worker's supervisor. f.mu is held.
func (f *Fleet) add(peer link.Peer) *worker {
	w := &worker{Peer: peer, done: make(chan struct{}), registrations: 1, heartbeat: time.Now()}
	ctx, stop := context.WithCancelCause(f.ctx)
	w.stop = stop
	f.workers[w.Label] = w
	f.models.count(w.Models, +1)
	f.unattended(w.Label, time.Time{})
	f.adoptDrainMark(w)
	f.log.Info("worker registered", zap.String("worker", w.Label), zap.String("instance", w.Instance),
		zap.String("address", w.UserAddr), zap.Strings("models", w.Names()), zap.Int("capacity", w.Capacity),
		telemetry.Often(w.UserAddr))
	f.supervisors.Go(func() { f.supervise(ctx, w) })
	return w
}

// Heartbeat records the worker's own count of its streams. Whether the worker is available the link says, in order with
// everything else there. Heartbeat reports false if this registration counts no longer: another process has taken the
// worker's label, and this one has to register anew.
func (r *Registration) Heartbeat(sessions int) bool {
	f := r.fleet
	f.mu.Lock()
	r.worker.heartbeat = time.Now()
	r.worker.reported = sessions
	l, leaving := r.worker.link, r.worker.leaving
	f.mu.Unlock()
	if l != nil {
		f.placement.Reported(l, sessions)
	}
	return !leaving
}

// Unreachable says why the director cannot connect to the worker, or nothing.
func (r *Registration) Unreachable() string {
	r.fleet.mu.Lock()
	defer r.fleet.mu.Unlock()
	return r.worker.unreachable
}

// Done is closed when the worker is not registered any more, and nothing of its link runs.
func (r *Registration) Done() <-chan struct{} { return r.worker.done }

// Close says that the MGMT connection is gone. The worker stays while its link is up: losing the control
// plane ends no stream.
func (r *Registration) Close() {
	r.fleet.mu.Lock()
	defer r.fleet.mu.Unlock()
	r.worker.registrations--
	if r.worker.registrations == 0 && r.worker.link == nil {
		r.worker.dismiss(errUnregistered)
	}
}
