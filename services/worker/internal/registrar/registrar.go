// Package registrar makes a worker known to its directors, and keeps telling them how it is.
package registrar

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config says where to register, and as what.
type Config struct {
	Directors []string // host:port; a name may stand for several addresses
	Interval  time.Duration
	Timeout   time.Duration    // for each answer
	Register  *wirepb.Register // but for the models
}

// Deps are what a Registrar works with.
type Deps struct {
	Network quicnet.Network
	TLS     *tls.Config // for wire.ALPNMgmt, to a director
	// Load returns how many sessions there are, for a heartbeat. It may wait; its error ends the registration.
	Load func(ctx context.Context) (sessions int, err error)
	// Models are those that the worker has now; while there are none it registers nowhere.
	Models    func() []*wirepb.Model
	Server    func() string // inference server that it stands beside, for people; empty for none
	DrainedBy func() string // director whose operator has taken the worker out of use, or empty; told at registration
	// Replaced is told that another process of a director answers where the one of that instance did.
	Replaced func(instance string)
	Log      *zap.Logger
}

// Between two attempts at a director, or at its name.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// maxAddresses bounds how many addresses of one name count.
const maxAddresses = 64

// Registrar keeps one registration at each director that the configured addresses lead to: a process that answers at
// several of them has one.
type Registrar struct {
	cfg    Config
	deps   Deps
	places places

	running sync.WaitGroup

	mu        sync.Mutex
	addresses map[string][]string // of each name, as last resolved
	contacts  map[string]*contact // by address
}

// New returns a Registrar that is registered nowhere yet.
func New(cfg Config, deps Deps) *Registrar {
	return &Registrar{
		cfg: cfg, deps: deps,
		places:    places{of: make(map[string]*place)},
		addresses: make(map[string][]string),
		contacts:  make(map[string]*contact),
	}
}

// Registered is how many registrations stand.
func (r *Registrar) Registered() int { return r.places.registered() }

// Unreachable says why no director can reach the worker's USER port, as they told; it is empty if one can, or if there is
// no director to ask.
func (r *Registrar) Unreachable() string { return r.places.unreachable() }

// LinkEnded makes the registration at a director's process be looked at now: its link has ended, and so may have the
// process. It does not block.
func (r *Registrar) LinkEnded(instance string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.contacts {
		c.wake(instance)
	}
}

// Renew registers anew everywhere: the models are others.
func (r *Registrar) Renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.contacts {
		c.renew()
	}
}

// severalAddresses reports whether one director could be met at more than one address.
func (r *Registrar) severalAddresses() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.contacts) > 1
}

// Run keeps the registrations until ctx ends; then it takes leave of the directors. Each name is looked up by a goroutine of
// its own: one whose name server does not answer holds up no other.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	names := slices.Clone(r.cfg.Directors)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		r.running.Go(func() { r.lookUp(ctx, name) })
	}
	<-ctx.Done()
	return nil
}

// lookUp keeps the addresses of a name up to date until ctx ends. While it cannot be looked up the name keeps those that it
// had, and each reason is told once.
func (r *Registrar) lookUp(ctx context.Context, name string) {
	again := retry.Backoff{First: firstWait, Most: lastWait}
	complaint := ""
	for ctx.Err() == nil {
		wait := r.cfg.Interval
		found, err := r.resolve(ctx, name)
		if err == nil {
			r.follow(ctx, name, found[:min(len(found), maxAddresses)])
			complaint = ""
			again.Reset()
		} else {
			wait = min(wait, again.Next())
			if ctx.Err() == nil && complaint != err.Error() {
				complaint = err.Error()
				r.deps.Log.Warn("cannot resolve director", zap.String("address", name), zap.Error(err))
			}
		}
		retry.Sleep(ctx, wait)
	}
}

func (r *Registrar) resolve(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.deps.Network.Resolve(ctx, name)
}

// follow makes the contacts be those of the addresses, of which name now has these: new ones start, those of vanished
// addresses stop.
func (r *Registrar) follow(ctx context.Context, name string, found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addresses[name] = found
	wanted := make(map[string]bool)
	for _, addrs := range r.addresses {
		for _, addr := range addrs {
			wanted[addr] = true
		}
	}
	for _, addr := range found {
		if r.contacts[addr] == nil {
			r.start(ctx, addr)
		}
	}
	for addr, c := range r.contacts {
		if !wanted[addr] {
			c.stop()
			delete(r.contacts, addr)
		}
	}
}

// start begins to register at an address. r.mu is held.
func (r *Registrar) start(ctx context.Context, addr string) {
	ctx, stop := context.WithCancel(ctx)
	c := newContact(r, addr, stop)
	r.contacts[addr] = c
	r.running.Go(func() {
		defer stop()
		c.run(ctx)
	})
}
