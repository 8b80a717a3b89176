package session

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// Config bounds a Table.
type Config struct {
	Capacity int     // sessions at once
	MaxBytes int64   // of prompts and chunks that directors have sent
	Models   []Model // the first serves who names none; none until SetModels
	Log      *zap.Logger
}

// Table has the sessions of a worker, of all directors. It is safe for concurrent use. Its lock may be taken while that of a
// session is held.
type Table struct {
	cfg    Config
	chunks atomic.Uint64 // made so far

	mu        sync.Mutex
	models    []*Model
	sessions  map[Key]*Session
	perModel  map[*Model]int
	bytes     int64 // that they hold
	reason    string
	withheld  string        // why the engines take nothing; empty if they do
	stopping  chan struct{} // not nil once the worker is to stop; closed when it has no session left
	directors map[*func(State)]struct{}
}

// Key says which stream a session serves.
type Key struct {
	ConnectionID string
	StreamID     uint64
}

// State says whether a worker takes sessions, and why not.
type State struct {
	Available, Failed, Draining bool
	Reason                      string
}

// ShuttingDown is the reason of a worker that is about to stop.
const ShuttingDown = "shutting down"

// NewTable returns a Table that takes sessions.
func NewTable(cfg Config) *Table {
	t := &Table{
		cfg: cfg, sessions: make(map[Key]*Session), perModel: make(map[*Model]int), directors: make(map[*func(State)]struct{}),
	}
	t.SetModels(cfg.Models)
	return t
}

// SetModels says which models there are from now on. Sessions of others go on.
func (t *Table) SetModels(models []Model) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := make([]*Model, len(models))
	for i, m := range models {
		if j := slices.IndexFunc(t.models, func(old *Model) bool { return old.Engine == m.Engine && old.Capacity == m.Capacity }); j >= 0 {
			now[i] = t.models[j] // its places are taken as before
			continue
		}
		if e, ok := m.Engine.(engine.Stepper); ok {
			m.batch = newBatch(e)
		}
		now[i] = &m
	}
	t.models = now
}

// Models returns those that there are.
func (t *Table) Models() []Model {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Model, len(t.models))
	for i, m := range t.models {
		all[i] = *m
	}
	return all
}

// Load is how busy a Table is.
type Load struct {
	Available bool
	Reason    string // why not
	Sessions  int
	Bytes     int64 // that they hold
}

// Load returns the load of this moment.
func (t *Table) Load() Load {
	t.mu.Lock()
	defer t.mu.Unlock()
	reason := t.unavailable()
	return Load{Available: reason == "", Reason: reason, Sessions: len(t.sessions), Bytes: t.bytes}
}

// Chunks returns how many chunks the sessions have made since the start.
func (t *Table) Chunks() uint64 { return t.chunks.Load() }

// unavailable says why no session is taken now, or nothing. t.mu is held.
func (t *Table) unavailable() string {
	if t.stopping != nil {
		return ShuttingDown
	}
	if t.reason != "" {
		return t.reason
	}
	return t.withheld
}

// Withhold says why the engines take nothing for now, which directors are told; empty if they do. Sessions go on.
func (t *Table) Withhold(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.unavailable()
	t.withheld = reason
	if now := t.unavailable(); now != before && t.stopping == nil {
		t.tell(State{Available: now == "", Reason: now})
	}
}

// Join has a director told whether the worker takes sessions, now and whenever that changes, until leave is called. tell
// must not block.
func (t *Table) Join(tell func(State)) (leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.directors[&tell] = struct{}{}
	tell(State{Available: t.unavailable() == "", Reason: t.unavailable()})
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.directors, &tell)
	}
}

// tell tells all directors. t.mu is held.
func (t *Table) tell(s State) {
	for tell := range t.directors {
		(*tell)(s)
	}
}

// Fail makes the table refuse sessions, drops those that it has, and tells the directors why.
func (t *Table) Fail(reason string) {
	for _, s := range t.close(reason) {
		s.Stop()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(State{Failed: true, Reason: reason})
}

// close refuses sessions from now on, and returns those that there are.
func (t *Table) close(reason string) []*Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reason = reason
	return t.all()
}

// all returns the sessions. t.mu is held.
func (t *Table) all() []*Session {
	all := make([]*Session, 0, len(t.sessions))
	for _, s := range t.sessions {
		all = append(all, s)
	}
	return all
}

// Recover makes the table take sessions again, unless the worker is to stop.
func (t *Table) Recover() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reason = ""
	if t.stopping == nil {
		t.tell(State{Available: t.unavailable() == "", Reason: t.unavailable()})
	}
}

// Drain takes no more sessions, asks the directors to move those that there are, and waits until they are gone; or until
// the time is up, or ctx ends.
func (t *Table) Drain(ctx context.Context, timeout time.Duration) {
	t.mu.Lock()
	empty := make(chan struct{})
	t.stopping = empty
	sessions := len(t.sessions)
	if sessions == 0 {
		close(empty)
	}
	t.cfg.Log.Info("draining", zap.Int("sessions", sessions), zap.Duration("timeout", timeout))
	t.tell(State{Draining: true, Reason: ShuttingDown})
	t.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-empty:
		t.cfg.Log.Info("drained")
	case <-timer.C:
		t.cfg.Log.Warn("not drained in time; the streams left are lost to other workers", zap.Int("sessions", t.Load().Sessions))
	case <-ctx.Done():
	}
}

// add takes a place for a session, and the memory for what it begins with, or says why there is none. An older session of
// the same stream ends first, wherever it came from.
func (t *Table) add(s *Session) *wire.Error {
	for {
		older, refusal := t.insert(s)
		if older == nil {
			return refusal
		}
		older.Stop()
	}
}

// insert returns an older session of the same stream, which has to end first.
func (t *Table) insert(s *Session) (older *Session, refusal *wire.Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if older = t.sessions[s.key]; older != nil {
		if older.epoch >= s.epoch {
			return nil, wire.Errorf(wire.CodeStaleEpoch, "stream %d of %s is served in epoch %d already", s.key.StreamID, s.key.ConnectionID, older.epoch)
		}
		return older, nil
	}
	if s.model, refusal = t.model(s.request.Model); refusal != nil {
		return nil, refusal
	}
	switch reason := t.unavailable(); {
	case reason != "":
		return nil, wire.Errorf(wire.CodeUnavailable, "%s", reason)
	case len(t.sessions) >= t.cfg.Capacity:
		return nil, wire.Errorf(wire.CodeCapacity, "all %d places are taken", t.cfg.Capacity)
	case s.model.Capacity > 0 && t.perModel[s.model] >= s.model.Capacity:
		return nil, wire.Errorf(wire.CodeCapacity, "all %d places of model %s are taken", s.model.Capacity, s.model.Name())
	}
	if refusal := t.take(s.bytes); refusal != nil {
		return nil, refusal
	}
	t.sessions[s.key] = s
	t.perModel[s.model]++
	return nil, nil
}

// model returns the model of a name, or the first one for none. t.mu is held.
func (t *Table) model(name string) (*Model, *wire.Error) {
	for _, m := range t.models {
		if name == "" || m.Name() == name {
			return m, nil
		}
	}
	return nil, wire.Errorf(wire.CodeModel, "this worker has no model %q", name)
}

// grow takes memory for a session that has its place, or says why there is none.
func (t *Table) grow(bytes int) *wire.Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.take(bytes)
}

// take takes memory. t.mu is held.
func (t *Table) take(bytes int) *wire.Error {
	if t.bytes+int64(bytes) > t.cfg.MaxBytes {
		return wire.Errorf(wire.CodeCapacity, "no room for %d bytes more: of %d in all (CONNECTION_SWAP_WORKER_MAX_BYTES) %d are taken",
			bytes, t.cfg.MaxBytes, t.bytes)
	}
	t.bytes += int64(bytes)
	return nil
}

// remove gives a session's place back, and its memory. It is called once for each that was added.
func (t *Table) remove(s *Session, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, s.key)
	if t.perModel[s.model]--; t.perModel[s.model] == 0 {
		delete(t.perModel, s.model)
	}
	t.bytes -= int64(bytes)
	if len(t.sessions) == 0 && t.stopping != nil {
		close(t.stopping) // once: no session begins any more
	}
}

// Sessions lists what the worker is working on, in the order of connection and stream.
func (t *Table) Sessions() []Status {
	t.mu.Lock()
	sessions := t.all()
	t.mu.Unlock()
	all := make([]Status, len(sessions))
	for i, s := range sessions {
		all[i] = s.Status()
	}
	slices.SortFunc(all, Status.compare)
	return all
}
