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

	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/config"
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

// errLoading is of a server that will be there.
var errLoading = errors.New("is loading a model")

// meet asks the server who it is, probes what is new, and offers the worker its models. Behind a rest a token has to come first.
func (m *Monitor) meet(ctx context.Context) (state string, err error) {
	state, err = m.health(ctx)
	if err != nil {
		return state, err
	}
	id, err := within(ctx, probing, m.cfg.Server.Identify) // which may make a token
	switch {
	case err != nil && m.Status().State == ready && m.excused(err):
		return "", nil // it is what it was, as far as anybody knows
	case err != nil:
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
	if err := m.measure(ctx, id, models); err != nil {
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

// errLate is of a server that took too long for a Monitor.
var errLate = errors.New("no answer")

// within calls f with a time limit.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errLate, limit))
	defer cancel()
	answer, err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// offered returns the models of the server that the worker is to have: each once, and none whose name directors do not take.
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
		there := slices.ContainsFunc(models, func(other Model) bool { return other.Name == o.Name })
		if one, ok := find(o.At); ok && !there && config.CheckModel(o.Name) == nil && len(models) < maxOffered {
			models = append(models, Model{Name: o.Name, At: o.At, Fingerprint: one.Fingerprint, Context: one.Context})
		}
	}
	switch {
	case len(models) > 0:
	case len(id.Models) == 0:
		return nil, errors.New("has no model")
	default:
		names := make([]string, len(id.Models))
		for i, one := range id.Models {
			names[i] = one.Name
		}
		return nil, fmt.Errorf("has none of the models that are offered (CONNECTION_SWAP_WORKER_UPSTREAM_MODELS); it has: %s", strings.Join(names, ", "))
	}
	return models, nil
}

// measure fills in what the models can be relied on for: as it was measured, where server and fingerprint are the same.
func (m *Monitor) measure(ctx context.Context, id api.Identity, models []Model) error {
	m.mu.Lock()
	before, demanded := m.status.Models, m.again
	again := demanded || m.status.Version != id.Version || m.status.Kind != id.Kind
	m.again = false
	m.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, probing)
	defer cancel()
	for i := range models {
		one := &models[i]
		known := slices.IndexFunc(before, func(old Model) bool { return old.Name == one.Name && old.Fingerprint == one.Fingerprint })
		if known >= 0 {
			one.Abilities = before[known].Abilities
		}
		if known >= 0 && !again {
			continue
		}
		m.trying(one.Name)
		err := m.probe(limited, one, known >= 0, i == 0)
		if err != nil {
			m.mu.Lock()
			m.again = m.again || demanded
			m.mu.Unlock()
			return err
		}
	}
	return nil
}

// probe measures a model. One of which something is known keeps that where the server has no time for more; the first one has to make a
// token.
func (m *Monitor) probe(ctx context.Context, one *Model, known, first bool) error {
	found, err := probe.Measure(ctx, m.cfg.Server, one.At)
	m.mu.Lock()
	m.status.Probes++
	if found.Tokens > 0 {
		m.token = time.Now()
	}
	m.mu.Unlock()
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	log := m.cfg.Log.With(zap.String("model", one.Name), zap.String("fingerprint", one.Fingerprint))
	switch {
	case err == nil:
	case known && (late || isBusy(err)):
		log.Warn("model not measured anew; what was measured before counts", zap.Error(err))
		return nil
	case late && (found.Tokens > 0 || !first): // of a server with many models the others come first
		found.Seen = strings.TrimPrefix(found.Seen+"; there was no time for more: of many models name those that are wanted", "; ")
	default:
		return fmt.Errorf("fails when model %s is tried: %w", one.At, err)
	}
	one.Abilities = found
	log.Info("model measured", zap.String("class", string(found.Class)), zap.String("seen", found.Seen), zap.Int("tokens", found.Tokens))
	return nil
}

func isBusy(err error) bool { return isFault(err, api.Busy) }

func isFault(err error, fault api.Fault) bool {
	why := (*api.Error)(nil)
	return errors.As(err, &why) && why.Fault == fault
}

// excused reports whether a server that has other things to do may have no token in time, by its own word.
func (m *Monitor) excused(err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := errors.Is(err, errLate) || isFault(err, api.Silent)
	return isBusy(err) || late && m.status.Load.Waiting > 0
}

// trying says what a server that is not ready is waited for.
func (m *Monitor) trying(model string) {
	m.mu.Lock()
	isReady := m.status.State == ready
	m.mu.Unlock()
	if !isReady {
		m.enter(starting, "server "+m.cfg.Where+": finds out what model "+model+" can be relied on for")
	}
}

// offer has the worker have the models, and says so where directors have to be told something else than before.
func (m *Monitor) offer(id api.Identity, models []Model) {
	engines, told := make([]*upstream.Engine, len(models)), []string{string(id.Kind) + " " + id.Version}
	m.mu.Lock()
	for i, one := range models {
		e := m.engines[one.Name]
		if e == nil {
			e = m.cfg.Engine(one.Name, m.Report)
			m.engines[one.Name] = e
		}
		e.Set(api.Model{Name: one.At, Fingerprint: one.Fingerprint, Context: one.Context}, one.Abilities)
		engines[i] = e
		told = append(told, fmt.Sprintf("%q %q %q %d %q", one.Name, one.Fingerprint, one.Abilities.Class, e.Promises(), e.Answers()))
	}
	changed := !slices.Equal(m.told, told)
	m.told = told
	m.status.Kind, m.status.Version, m.status.Models = id.Kind, id.Version, models
	m.mu.Unlock()
	if changed {
		m.cfg.Serve(engines)
	}
}

// watch asks how the server is until it is not well, or may be another one, which is no error.
func (m *Monitor) watch(ctx context.Context) (state string, err error) {
	for met := time.Now(); err == nil; {
		if state, err = m.look(ctx); err != nil {
			break
		}
		m.weigh(ctx)
		switch since := time.Since(met); {
		case since >= identify, since >= every && m.doubted():
			state, err = m.alongside(ctx, m.meet)
			met = time.Now()
		case m.lies():
			state, err = m.alongside(ctx, m.prove)
		}
	}
	if state != resting && ctx.Err() == nil {
		m.gone()
	}
	return state, err
}

// look waits for a moment, and asks how the server is.
func (m *Monitor) look(ctx context.Context) (state string, err error) {
	interval := every
	if m.cfg.Own() == 0 {
		interval = idle
	}
	m.sleep(ctx, interval*3/4+rand.N(interval/2), true)
	if m.tripped() {
		return resting, errors.New("fails attempt after attempt")
	}
	state, err = m.health(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return state, err
}

// alongside does something that may take its time, on this goroutine, for as long as the server is well.
func (m *Monitor) alongside(ctx context.Context, do func(context.Context) (string, error)) (state string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var looking sync.WaitGroup
	var unwell string // set before looking ends; empty where that is because of ctx
	var why error
	looking.Go(func() {
		defer cancel()
		for why == nil {
			unwell, why = m.look(ctx)
		}
	})
	state, err = do(ctx)
	cancel()
	looking.Wait()
	if unwell != "" {
		return unwell, why
	}
	return state, err
}

// weigh asks what the server has to do, for others than this worker, too.
func (m *Monitor) weigh(ctx context.Context) {
	own := m.cfg.Own()
	load, err := within(ctx, asking, m.cfg.Server.Load)
	if err != nil {
		load = api.Load{}
	}
	own = max(own, m.cfg.Own()) // some have come, or ended, meanwhile
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Load, m.others = load, 0
	if load.Known {
		m.others = max(0, load.Running+load.Waiting-own)
	}
}

// lies reports whether the server's word that it is well is to be tried: there is a kind whose word says nothing of what makes the
// tokens.
func (m *Monitor) lies() bool {
	chunks := m.cfg.Chunks()
	m.mu.Lock()
	defer m.mu.Unlock()
	if chunks != m.chunks {
		m.chunks, m.token = chunks, time.Now()
	}
	return m.status.Kind == api.VLLM && time.Since(m.token) > lively
}

// prove tries the server's word.
func (m *Monitor) prove(ctx context.Context) (state string, err error) {
	m.mu.Lock()
	model := m.status.Models[0].At
	m.mu.Unlock()
	if err = m.try(ctx, model); err != nil && !m.excused(err) {
		return lost, fmt.Errorf("says that it is well, and makes no token: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = time.Now()
	return "", nil
}

// doubted reports, once, whether the server may be another one than it was, or is to be tried anew.
func (m *Monitor) doubted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	doubted := m.suspect || m.again
	m.suspect = false
	return doubted
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
