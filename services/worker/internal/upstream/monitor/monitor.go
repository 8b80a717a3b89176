// Package monitor watches one inference server: whether it is there, which models it has, what they can be relied on for, and what it
// has to do. It is the only one that asks without a stream that wants something.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/retry"
)

// Offer is a model of the server that the worker is to have.
type Offer struct {
	Name string // in requests to the worker
	At   string // at the server
}

// Server is what a Monitor asks.
type Server interface {
	Identify(ctx context.Context) (api.Identity, error)
	Health(ctx context.Context) (api.Health, error)
	Load(ctx context.Context) (api.Load, error)
	Warm(ctx context.Context, call api.Call) error
	probe.Server
}

// Config says what is watched, and who is told.
type Config struct {
	Server Server
	Where  string  // the server, for people
	Offers []Offer // empty for all models that it has
	// Engine makes the engine of a model that is offered. Report of its options is the Monitor's.
	Engine func(name string, report func(error)) *upstream.Engine
	// Serve is told which engines there are, the first of which serves who names none. It is called from Run's goroutine.
	Serve func([]*upstream.Engine)
	// Withhold is told why the worker is to take nothing now; empty if it may. It is called from Run's goroutine.
	Withhold func(reason string)
	Own      func() int    // streams that the worker has of the server now; nil for none
	Chunks   func() uint64 // that have come of the server so far, which show that it lives; nil for none
	Log      *zap.Logger
}

// How often the server is asked, and how long it may take.
const (
	every      = time.Second     // how it is, and what it has to do
	idle       = 2 * time.Second // that, while the worker has no stream of it
	identify   = time.Minute     // what it is
	asking     = 5 * time.Second
	firstWait  = 100 * time.Millisecond // until a server that is not there is asked again; longer each time
	lastWait   = 2 * time.Second
	probing    = 3 * time.Minute  // for all models
	lively     = 30 * time.Second // for so long a token that came says that the server makes some
	aToken     = 20 * time.Second // for one that is asked for because none came, and nothing waits for another reason
	maxOffered = 64
)

// Monitor watches one server. It is safe for concurrent use.
type Monitor struct {
	cfg  Config
	poke chan struct{} // capacity 1: look now

	mu      sync.Mutex
	status  Status
	engines map[string]*upstream.Engine // by name
	told    []string                    // what directors are told of the server and of each model
	breaker breaker
	token   time.Time // when one came last
	chunks  uint64    // that had come by then
	others  int       // requests that the server has of others
	suspect bool      // an attempt failed as if the server were gone
	again   bool      // the models are to be probed anew
	faults  map[string]uint64
}

// States.
const (
	ready    = "ready"
	starting = "starting"
	resting  = "resting"
	lost     = "lost"
	unknown  = "unknown"
)

// New returns a Monitor, which asks nothing before Run.
func New(cfg Config) *Monitor {
	if cfg.Own == nil {
		cfg.Own = func() int { return 0 }
	}
	if cfg.Chunks == nil {
		cfg.Chunks = func() uint64 { return 0 }
	}
	return &Monitor{
		cfg: cfg, poke: make(chan struct{}, 1), engines: map[string]*upstream.Engine{}, faults: map[string]uint64{},
		status: Status{Where: cfg.Where, State: unknown, Reason: "it was not asked yet", Since: time.Now()},
	}
}

// Run watches until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	again := retry.Backoff{First: firstWait, Most: lastWait}
	m.enter(unknown, "server "+m.cfg.Where+" has not answered yet")
	for ctx.Err() == nil {
		state, err := m.meet(ctx)
		if err == nil {
			again.Reset()
			state, err = m.watch(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		wait, hint := again.Next(), fmt.Sprintf("; tries again within %v", lastWait)
		if rest := m.rest(); rest > 0 {
			state, wait, hint = resting, rest, fmt.Sprintf("; it rests, and is tried in %v", rest.Round(100*time.Millisecond))
		}
		m.enter(state, fmt.Sprintf("server %s %v%s", m.cfg.Where, err, hint))
		m.sleep(ctx, wait, state != resting)
	}
	return nil
}

// sleep waits, or until somebody says that there is something to see.
func (m *Monitor) sleep(ctx context.Context, d time.Duration, wakes bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	poke := m.poke
	if !wakes {
		poke = nil
	}
	select {
	case <-timer.C:
	case <-poke:
	case <-ctx.Done():
	}
}

// Report takes note of how an attempt at the server came out; nil for well. A Monitor looks at once where the server may be gone.
func (m *Monitor) Report(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if err == nil {
		m.token = now
		m.breaker.attempt(true, now)
		return
	}
	fault := api.Failed
	if why := (*api.Error)(nil); errors.As(err, &why) {
		fault = why.Fault
	}
	m.faults[string(fault)]++
	switch fault {
	case api.Busy: // it is there
		return
	case api.Denied: // it is there, and may have other models, or another key
	default:
		m.breaker.attempt(false, now)
	}
	m.suspect = true
	m.wake()
}

// Probe has all models tried anew.
func (m *Monitor) Probe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.again = true
	m.wake()
}

func (m *Monitor) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// gone takes note that the server was lost.
func (m *Monitor) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breaker.gone(time.Now())
}

// rest returns how much longer the server rests.
func (m *Monitor) rest() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, time.Until(m.breaker.until))
}

// tripped reports whether the server has to show that it makes tokens.
func (m *Monitor) tripped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.breaker.until.IsZero()
}

// enter says in which state the server is, and why.
func (m *Monitor) enter(state, reason string) {
	m.mu.Lock()
	s := &m.status
	changed := s.State != state
	if changed {
		s.State, s.Since = state, time.Now()
	}
	s.Reason = reason
	m.mu.Unlock()
	m.cfg.Withhold(reason)
	switch {
	case !changed:
	case state == ready:
		m.cfg.Log.Info("inference server is ready", zap.String("server", m.Line()))
	default:
		m.cfg.Log.Warn("inference server is not ready", zap.String("state", state), zap.String("reason", reason))
	}
}
