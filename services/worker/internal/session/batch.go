package session

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/connswap/connswap/services/worker/engine"
)

// batch has the sessions of an engine.Stepper. Their goroutines sleep: one of them, whichever has the baton, waits for the
// engine's steps and puts out what there is for all. A session's own goroutine is woken where the session may make no more
// for now, or has ended.
type batch struct {
	engine engine.Stepper
	baton  chan struct{} // capacity 1

	mu      sync.Mutex // held while chunks are made; before that of a session
	members []*member
}

// member is a session in a batch. While it is active the batch's mu guards what otherwise its goroutine owns.
type member struct {
	*Session
	generation engine.Stepped
	active     bool       // guarded by the batch's mu
	woken      chan error // capacity 1: it is not active any more; with the cause if it is not to be either
}

func newBatch(e engine.Stepper) *batch {
	b := &batch{engine: e, baton: make(chan struct{}, 1)}
	b.baton <- struct{}{}
	return b
}

// generate makes a session's chunks, and returns how that ends.
func (b *batch) generate(ctx context.Context, s *Session, g engine.Stepped) error {
	m := &member{Session: s, generation: g, woken: make(chan error, 1)}
	b.join(m)
	defer b.leave(m)
	for {
		if err := s.mayGo(ctx); err != nil {
			return err
		}
		b.activate(m)
		if err := b.await(ctx, m); err != nil {
			return err
		}
	}
}

func (b *batch) join(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = append(b.members, m)
}

// leave takes m out. When it returns nothing is made for it any more.
func (b *batch) leave(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.members, m)
	b.members = slices.Delete(b.members, i, i+1)
}

// activate has chunks made for m, those first that are there already: no step may come before they are taken.
func (b *batch) activate(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.active = true
	m.make()
	m.flush()
}

// await returns when m is woken. Meanwhile its goroutine may get the baton.
func (b *batch) await(ctx context.Context, m *member) error {
	for {
		select {
		case err := <-m.woken:
			return err
		case <-b.baton:
			if err := b.step(ctx, m); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// step waits for a step of the engine, puts out what there is then, and gives the baton back. m is whose goroutine has it.
func (b *batch) step(ctx context.Context, m *member) error {
	defer func() { b.baton <- struct{}{} }() // also where the engine panics
	if len(m.woken) > 0 {                    // by the step before
		return nil
	}
	if err := b.engine.Step(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.members {
		m.make()
	}
	for _, m := range b.members { // not before: what they share leaves in one write
		m.flush()
	}
	return nil
}

// make puts out the chunks that there are for an active member.
func (m *member) make() {
	if !m.active {
		return
	}
	if err := m.chunks(); !errors.Is(err, engine.ErrNotYet) {
		m.active = false
		m.woken <- err
	}
}

// chunks returns why there are no more: nil if the session may not go on now.
func (m *member) chunks() (err error) {
	defer m.recovered(&err)
	for m.mayGoNow() {
		chunk, err := m.generation.TryNext()
		if err != nil {
			return err
		}
		if err := m.put(chunk); err != nil {
			return err
		}
	}
	return nil
}
