package pool

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire"
)

// Registration is one MGMT connection on which a worker is registered.
type Registration struct {
	pool   *Pool
	worker *Worker
}

// Register makes a worker known, or refreshes what is known. A second live worker under the same label is
// refused with CodeLabelInUse; a newer instance of one that is gone, or does not answer, takes its place.
func (p *Pool) Register(info Worker) (*Registration, error) {
	for {
		p.mu.Lock()
		if p.ctx.Err() != nil {
			p.mu.Unlock()
			return nil, wire.Errorf(wire.CodeShutdown, "the director is shutting down")
		}
		old := p.workers[info.Label]
		switch {
		case old == nil:
			w := p.add(info)
			p.mu.Unlock()
			return &Registration{pool: p, worker: w}, nil
		case old.leaving: // nothing may be hung on it any more
		case old.Instance == info.Instance && old.link == nil && old.UserAddr != info.UserAddr:
			old.dismiss(errMoved)
		case old.Instance == info.Instance:
			old.registrations++
			old.heartbeat = time.Now()
			old.marked = old.marked || info.Drained
			p.tellDrainMark(old)
			p.mu.Unlock()
			return &Registration{pool: p, worker: old}, nil
		case old.link != nil && old.registrations > 0:
			p.mu.Unlock()
			return nil, wire.Errorf(wire.CodeLabelInUse,
				"another worker at %s is registered as %q; choose another CONNECTION_SWAP_WORKER_LABEL", old.UserAddr, info.Label)
		default:
			old.dismiss(errReplaced)
		}
		p.mu.Unlock()
		<-old.done // its sessions are on their way elsewhere
	}
}

// add starts a worker's keeper. p.mu is held.
func (p *Pool) add(info Worker) *Worker {
	w := info
	ctx, stop := context.WithCancelCause(p.ctx)
	w.stop, w.done = stop, make(chan struct{})
	w.registrations, w.heartbeat = 1, time.Now()
	p.workers[w.Label] = &w
	p.adoptDrainMark(&w)
	p.log.Info("worker registered", zap.String("worker", w.Label), zap.String("instance", w.Instance),
		zap.String("address", w.UserAddr), zap.String("engine", w.Engine), zap.Int("capacity", w.Capacity))
	p.keepers.Go(func() { p.keep(ctx, &w) })
	return &w
}

// Heartbeat takes note of the worker's own count of its sessions. Whether it is available the link says, in
// order with everything else there. It is false if this registration counts no longer: the worker has been
// replaced, and has to register anew.
func (r *Registration) Heartbeat(sessions int) bool {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.worker.heartbeat = time.Now()
	r.worker.reported = sessions
	return !r.worker.leaving
}

// Close says that the MGMT connection is gone. The worker stays while its link is up: losing the control
// plane ends no stream.
func (r *Registration) Close() {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.worker.registrations--
	if r.worker.registrations == 0 && r.worker.link == nil {
		r.worker.dismiss(errGone)
	}
}
