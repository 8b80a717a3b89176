// Package fleettest has a fleet of scripted workers, for tests of whatever places streams on workers.
package fleettest

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/link/linktest"
	"github.com/connswap/connswap/shared/identity"
)

// Fleet is a fleet whose workers are scripted. Close it.
type Fleet struct {
	*fleet.Fleet

	mu    sync.Mutex
	fakes map[string]*linktest.Fake // by instance
}

// New returns a fleet without workers. deps need not be complete.
func New(deps fleet.Deps) *Fleet {
	f := &Fleet{fakes: map[string]*linktest.Fake{}}
	deps.Dialer = f
	if deps.Log == nil {
		deps.Log = zap.NewNop()
	}
	if deps.Clock == nil {
		deps.Clock = &clock.StallProof{}
	}
	f.Fleet = fleet.New(link.Config{
		DirectorID: "director-1", Instance: "d", KeepAlive: 100 * time.Millisecond,
		IdleTimeout: 300 * time.Millisecond, ProgressTimeout: 500 * time.Millisecond,
	}, deps)
	return f
}

// Dial reaches the worker of that instance, once.
func (f *Fleet) Dial(ctx context.Context, peer link.Peer) (link.Conn, error) {
	f.mu.Lock()
	w := f.fakes[peer.Instance]
	f.mu.Unlock()
	if w == nil {
		return nil, linktest.ErrDead
	}
	return w.Dial(ctx, peer)
}

// Fake is a scripted worker of a fleet, with the director's link to it.
type Fake struct {
	*linktest.Fake
	*link.Link

	registration *fleet.Registration
}

// Connect registers a worker, waits until its link is up, and returns it. Without an instance of its own it gets one.
func (f *Fleet) Connect(peer link.Peer) (*Fake, error) {
	if peer.Instance == "" {
		peer.Instance = identity.NewID()
	}
	w := &Fake{Fake: linktest.NewFake(peer)}
	f.mu.Lock()
	f.fakes[peer.Instance] = w.Fake
	f.mu.Unlock()
	var err error
	if w.registration, err = f.Register(peer); err != nil {
		return nil, err
	}
	<-w.Connected()
	w.Link, err = f.Link(peer.Label)
	return w, err
}

// Lose loses the worker: it is not registered any more, and nobody reaches it. It returns when that is done.
func (w *Fake) Lose(cause link.Cause) {
	w.registration.Close()
	w.Link.Lose(link.Lost(cause, nil))
	<-w.registration.Done()
}
