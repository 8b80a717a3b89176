package pool

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// Worker is a registered worker. Its fields do not change: a new instance is a new Worker.
type Worker struct {
	Label       string
	Instance    string
	UserAddr    string
	MgmtAddr    string
	Engine      string
	Fingerprint string
	Capacity    int
	Stateful    bool   // its engine has a state that moves with a session
	Version     uint32 // of the protocol to speak with it
	Build       string
	Drained     bool   // it said at registration that an operator had taken it out of use
	DrainedBy   string // id of the director that told it so

	stop context.CancelCauseFunc // ends its keeper
	done chan struct{}           // closed when the keeper has ended

	// The fields below are guarded by Pool.mu.
	registrations int       // MGMT connections on which it is registered
	leaving       bool      // its keeper ends: whoever comes now is new
	heartbeat     time.Time // last one
	reported      int       // sessions on it, by its own count
	link          *Link     // nil while down
	marked        bool      // it has said or was told that it is drained, and may believe it still
}

var (
	errShutdown = errors.New("director shuts down")
	errReplaced = errors.New("replaced by a newer instance")
	errMoved    = errors.New("it has another address")
	errGone     = errors.New("no longer registered")
)

const (
	redialFirst = 20 * time.Millisecond
	redialMost  = 500 * time.Millisecond
	steady      = time.Second // a link that held for less is not dialled again in a hurry
)

// keep holds a link to w until ctx ends, or until w is no longer registered and its link is lost.
func (p *Pool) keep(ctx context.Context, w *Worker) {
	defer close(w.done)
	log := p.log.With(zap.String("worker", w.Label))
	wait := redialFirst
	for ctx.Err() == nil {
		link := newLink(p, w)
		dialled := time.Now()
		up, err := link.run(ctx)
		if up && time.Since(dialled) > steady {
			wait = redialFirst
		}
		if ctx.Err() != nil || p.forget(w) {
			break
		}
		log.Debug("link is down", zap.Error(err), zap.Duration("redial_in", wait))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, redialMost)
	}
	p.remove(w)
	log.Info("worker left", zap.String("instance", w.Instance), zap.NamedError("reason", context.Cause(ctx)))
}

// forget reports whether nobody vouches for w any more.
func (p *Pool) forget(w *Worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.registrations > 0 {
		return false
	}
	w.dismiss(errGone)
	return true
}

// dismiss ends the worker's keeper. Pool.mu is held.
func (w *Worker) dismiss(reason error) {
	w.leaving = true
	w.stop(reason)
}

func (p *Pool) remove(w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers[w.Label] == w {
		delete(p.workers, w.Label)
	}
}
