package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/config"
)

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
		twice := slices.ContainsFunc(models, func(m Model) bool { return m.Name == o.Name })
		if one, ok := find(o.At); ok && !twice && config.CheckModel(o.Name) == nil && len(models) < maxOffered {
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
