// Package monitor watches one inference server: whether it is there, which models it has, what they can be relied on for, and what it
// has to do. It is the only one that asks without a stream that wants something.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
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
	Log      *zap.Logger
}

// How often the server is asked, and how long it may take.
const (
	every      = time.Second // how it is, and what it has to do
	identify   = time.Minute // what it is
	asking     = 5 * time.Second
	firstWait  = 100 * time.Millisecond // until a server that is not there is asked again; longer each time
	lastWait   = 2 * time.Second
	probing    = 3 * time.Minute  // for all models
	lively     = 30 * time.Second // for so long a token that came says that the server makes some
	aToken     = 20 * time.Second // for one that is asked for because none came
	maxOffered = 64
)

// Monitor watches one server. It is safe for concurrent use.
type Monitor struct {
	cfg  Config
	poke chan struct{} // capacity 1: look now

	mu      sync.Mutex
	status  Status
	engines map[string]*upstream.Engine // by name
	breaker breaker
	token   time.Time // when one came last
	suspect bool      // an attempt failed as if the server were gone
	again   bool      // the models are to be probed anew
	faults  map[string]uint64
}

// Status is what is known of a server, for people and programs.
type Status struct {
	Where   string            `json:"where"` // its URL
	Kind    api.Kind          `json:"kind,omitempty"`
	Version string            `json:"version,omitempty"`
	State   string            `json:"state"` // ready, starting, resting, lost or unknown
	Reason  string            `json:"reason,omitempty"`
	Since   time.Time         `json:"since"` // of the state
	Breaker string            `json:"breaker"`
	Models  []Model           `json:"models"`
	Load    api.Load          `json:"load"`
	Faults  map[string]uint64 `json:"faults"` // attempts that failed, by how
	Probes  uint64            `json:"probes"` // of models, so far
}

// Model is one that is offered.
type Model struct {
	Name        string          `json:"name"`
	At          string          `json:"at"` // its name at the server
	Fingerprint string          `json:"fingerprint"`
	Context     int             `json:"context,omitempty"` // tokens of prompt and answer
	Abilities   probe.Abilities `json:"abilities"`
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
		wait := again.Next()
		if rest := m.rest(); rest > 0 {
			state, wait = resting, rest
		}
		m.enter(state, fmt.Sprintf("server %s %v", m.cfg.Where, err))
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

// errLoading is of a server that will be there.
var errLoading = errors.New("is loading a model")

// meet asks the server who it is, probes what is new, and offers the worker its models. Behind a rest a token has to come first.
func (m *Monitor) meet(ctx context.Context) (state string, err error) {
	state, err = m.health(ctx)
	if err != nil {
		return state, err
	}
	id, err := within(ctx, probing, m.cfg.Server.Identify) // which may make a token
	if err != nil {
		return lost, fmt.Errorf("does not say what it is: %w", err)
	}
	models, err := m.offered(id)
	if err != nil {
		return lost, err
	}
	if m.tripped() {
		if err := m.try(ctx, models[0].At); err != nil {
			return lost, fmt.Errorf("has rested, and makes no token: %w", err)
		}
	}
	if err := m.measure(ctx, models); err != nil {
		return lost, err
	}
	m.offer(id, models)
	m.enter(ready, "")
	return "", nil
}

// health asks how the server is. The error is for people, behind its name.
func (m *Monitor) health(ctx context.Context) (state string, err error) {
	h, err := within(ctx, asking, m.cfg.Server.Health)
	switch {
	case err != nil:
		return lost, fmt.Errorf("does not answer: %w", err)
	case h.Starting:
		return starting, fmt.Errorf("%w: %s", errLoading, h.Reason)
	case h.Reason != "":
		return lost, fmt.Errorf("is not well: %s", h.Reason)
	}
	return "", nil
}

// within calls f with a time limit.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	answer, err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// offered returns the models of the server that the worker is to have.
func (m *Monitor) offered(id api.Identity) ([]Model, error) {
	find := func(name string) (api.Model, bool) {
		i := slices.IndexFunc(id.Models, func(one api.Model) bool { return one.Name == name })
		if i < 0 {
			return api.Model{}, false
		}
		return id.Models[i], true
	}
	offers := m.cfg.Offers
	if len(offers) == 0 {
		for _, one := range id.Models {
			offers = append(offers, Offer{one.Name, one.Name})
		}
	}
	var models []Model
	for _, o := range offers {
		if one, ok := find(o.At); ok && len(models) < maxOffered {
			models = append(models, Model{Name: o.Name, At: o.At, Fingerprint: one.Fingerprint, Context: one.Context})
		}
	}
	if len(models) == 0 {
		names := make([]string, len(id.Models))
		for i, one := range id.Models {
			names[i] = one.Name
		}
		return nil, fmt.Errorf("has none of the models that are offered (CONNECTION_SWAP_WORKER_UPSTREAM_MODELS); it has: %s", strings.Join(names, ", "))
	}
	return models, nil
}

// measure fills in what the models can be relied on for: as it was measured, where a fingerprint is the same.
func (m *Monitor) measure(ctx context.Context, models []Model) error {
	m.mu.Lock()
	before, again := m.status.Models, m.again
	m.again = false
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, probing)
	defer cancel()
	for i := range models {
		one := &models[i]
		j := slices.IndexFunc(before, func(old Model) bool { return old.Name == one.Name && old.Fingerprint == one.Fingerprint })
		if j >= 0 && !again {
			one.Abilities = before[j].Abilities
			continue
		}
		found, err := probe.Measure(ctx, m.cfg.Server, one.At)
		m.mu.Lock()
		m.status.Probes++
		m.mu.Unlock()
		switch {
		case err != nil && ctx.Err() != nil && i > 0: // of a server with many models the others come first
			found = probe.Abilities{Class: probe.Text, Seen: "there was no time to try it; name the models that are wanted"}
		case err != nil:
			return fmt.Errorf("fails when model %s is tried: %w", one.At, err)
		}
		m.lives()
		one.Abilities = found
		m.cfg.Log.Info("model measured", zap.String("model", one.Name), zap.String("fingerprint", one.Fingerprint), zap.String("class", string(found.Class)),
			zap.String("seen", found.Seen), zap.Int("tokens", found.Tokens))
	}
	return nil
}

// offer has the worker have the models.
func (m *Monitor) offer(id api.Identity, models []Model) {
	engines := make([]*upstream.Engine, len(models))
	m.mu.Lock()
	for i, one := range models {
		e := m.engines[one.Name]
		if e == nil {
			e = m.cfg.Engine(one.Name, m.Report)
			m.engines[one.Name] = e
		}
		e.Set(api.Model{Name: one.At, Fingerprint: one.Fingerprint, Context: one.Context}, one.Abilities)
		engines[i] = e
	}
	changed := !slices.EqualFunc(m.status.Models, models, func(a, b Model) bool {
		return a.Name == b.Name && a.Fingerprint == b.Fingerprint && a.Abilities.Class == b.Abilities.Class
	}) || m.status.Version != id.Version || m.status.Kind != id.Kind
	m.status.Kind, m.status.Version, m.status.Models = id.Kind, id.Version, models
	m.mu.Unlock()
	if changed {
		m.cfg.Serve(engines)
	}
}

// watch asks how the server is until it is not well, or may be another one, which is no error.
func (m *Monitor) watch(ctx context.Context) (state string, err error) {
	met := time.Now()
	for {
		m.sleep(ctx, every*3/4+rand.N(every/2), true)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if m.rest() > 0 {
			return resting, errors.New("rests: attempt after attempt has failed")
		}
		if state, err = m.health(ctx); err != nil {
			m.gone()
			return state, err
		}
		if load, err := within(ctx, asking, m.cfg.Server.Load); err == nil {
			m.mu.Lock()
			m.status.Load = load
			m.mu.Unlock()
		}
		if m.lies() {
			if err := m.try(ctx, m.first()); err != nil {
				m.gone()
				return lost, fmt.Errorf("says that it is well, and makes no token: %w", err)
			}
		}
		if time.Since(met) >= identify || m.doubted() {
			if state, err := m.meet(ctx); err != nil {
				m.gone()
				return state, err
			}
			met = time.Now()
		}
	}
}

// lies reports whether the server's word that it is well is to be tried: there is a kind whose word says nothing of what makes the
// tokens.
func (m *Monitor) lies() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Kind == api.VLLM && time.Since(m.token) > lively
}

// doubted reports, once, whether the server may be another one than it was, or is to be tried anew.
func (m *Monitor) doubted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	doubted := m.suspect || m.again
	m.suspect = false
	return doubted
}

func (m *Monitor) first() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Models[0].At
}

// try asks for one token.
func (m *Monitor) try(ctx context.Context, model string) error {
	_, err := within(ctx, aToken, func(ctx context.Context) (struct{}, error) {
		call := api.Call{Model: model, API: wire.APICompletions, Prompt: "1, 2, 3,", MaxTokens: 1, Choices: 1}
		err := m.cfg.Server.Warm(ctx, call)
		if why := (*api.Error)(nil); errors.As(err, &why) && (why.Fault == api.Rejected || why.Fault == api.Denied) { // it may only chat
			call = api.Call{Model: model, API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"Hi"}]}`), MaxTokens: 1, Choices: 1}
			err = m.cfg.Server.Warm(ctx, call)
		}
		return struct{}{}, err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.token = time.Now()
	}
	if !m.breaker.until.IsZero() {
		m.breaker.tried(err == nil, time.Now())
	}
	return err
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
	if fault == api.Busy || fault == api.Denied {
		return // it is there
	}
	m.breaker.attempt(false, now)
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

// lives takes note that a token came.
func (m *Monitor) lives() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = time.Now()
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

// Status returns what is known.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Models = slices.Clone(s.Models)
	s.Breaker = m.breaker.state(time.Now())
	s.Faults = make(map[string]uint64, len(m.faults))
	for fault, n := range m.faults {
		s.Faults[fault] = n
	}
	return s
}

// Line is the server in a line, for people.
func (m *Monitor) Line() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	words := []string{string(m.status.Kind), m.status.Version, "at", m.status.Where}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// Class returns what was measured of a model, in a word; empty for one that is not offered.
func (m *Monitor) Class(e engine.Engine) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.status.Models {
		if one.Name == e.Name() {
			return string(one.Abilities.Class)
		}
	}
	return ""
}

// Others returns how many requests the server has beside so many of the worker's own.
func (m *Monitor) Others(own int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.status.Load; l.Known && m.status.State == ready {
		return max(0, l.Running+l.Waiting-own)
	}
	return 0
}
