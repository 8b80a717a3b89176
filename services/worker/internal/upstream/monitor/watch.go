package monitor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

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
