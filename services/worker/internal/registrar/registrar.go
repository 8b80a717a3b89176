// Package registrar makes a worker known to its directors, and keeps telling them how it is.
package registrar

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/pace"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config says where to register, and as what.
type Config struct {
	Directors []string // host:port; a name may stand for several addresses
	Interval  time.Duration
	Timeout   time.Duration // for each answer
	Register  *wirepb.Register
}

// Deps are what a Registrar works with.
type Deps struct {
	Network quicnet.Network
	TLS     *tls.Config // for wire.ALPNMgmt, to a director
	Load    func() int  // sessions now, for the heartbeats
	Gate    *pace.Gate  // heartbeats pass it
	Log     *zap.Logger
}

// Between two attempts at a director, or at its name.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// Registrar keeps one registration at each address of each director.
type Registrar struct {
	cfg        Config
	deps       Deps
	registered atomic.Int64

	// Owned by Run.
	addresses map[string][]string           // of each name, as last resolved
	contacts  map[string]context.CancelFunc // by address
	complaint map[string]string             // the last resolving error of each name
	running   sync.WaitGroup
}

// New returns a Registrar that is registered nowhere yet.
func New(cfg Config, deps Deps) *Registrar {
	return &Registrar{
		cfg: cfg, deps: deps,
		addresses: make(map[string][]string),
		contacts:  make(map[string]context.CancelFunc),
		complaint: make(map[string]string),
	}
}

// Registered is how many registrations stand.
func (r *Registrar) Registered() int { return int(r.registered.Load()) }

// Run keeps the registrations until ctx ends; then it takes leave of the directors.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again := retry.Backoff{First: firstWait, Most: lastWait}
	for {
		complete := r.resolve(ctx)
		r.follow(ctx)
		wait := r.cfg.Interval
		if !complete {
			wait = min(wait, again.Next())
		} else {
			again.Reset()
		}
		if !retry.Sleep(ctx, wait) {
			return nil
		}
	}
}

// resolve looks all names up. A name that cannot be looked up keeps the addresses that it had.
func (r *Registrar) resolve(ctx context.Context) (complete bool) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	complete = true
	for _, name := range r.cfg.Directors {
		found, err := r.deps.Network.Resolve(ctx, name)
		if err != nil {
			complete = false
			if ctx.Err() == nil && r.complaint[name] != err.Error() {
				r.complaint[name] = err.Error()
				r.deps.Log.Warn("cannot resolve director", zap.String("address", name), zap.Error(err))
			}
			continue
		}
		delete(r.complaint, name)
		r.addresses[name] = found
	}
	return complete
}

// follow makes the contacts be those of the addresses: new ones start, those of vanished addresses stop.
func (r *Registrar) follow(ctx context.Context) {
	wanted := make(map[string]bool)
	for _, name := range r.cfg.Directors {
		for _, addr := range r.addresses[name] {
			wanted[addr] = true
			if r.contacts[addr] == nil {
				r.start(ctx, addr)
			}
		}
	}
	for addr, stop := range r.contacts {
		if !wanted[addr] {
			stop()
			delete(r.contacts, addr)
		}
	}
}

func (r *Registrar) start(ctx context.Context, addr string) {
	ctx, stop := context.WithCancel(ctx)
	r.contacts[addr] = stop
	c := &contact{registrar: r, addr: addr, backoff: retry.Backoff{First: firstWait, Most: lastWait}, log: r.deps.Log.With(zap.String("address", addr))}
	r.running.Go(func() {
		defer stop()
		c.run(ctx)
	})
}
