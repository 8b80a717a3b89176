package session

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Manager knows all sessions of a director: those that run, and for a while those that have ended. It is safe for
// concurrent use.
type Manager struct {
	deps      Deps
	retention time.Duration

	mu    sync.Mutex
	cfg   Config                           // of sessions that begin
	given uint64                           // numbers given out
	live  map[uint64]map[*Session]struct{} // by connection
	byID  map[uint64]*Session              // live ones
	ended []*Listed                        // the oldest end first; they do not change
}

// Listed is a session in a list.
type Listed struct {
	ID           uint64 `json:"-"` // rising with age
	ConnectionID string `json:"connection_id"`
	Snapshot
}

// maxEnded bounds what is remembered of sessions that have ended.
const maxEnded = 10_000

// NewManager returns a Manager without sessions. Those that have ended are listed for the given time.
func NewManager(cfg Config, deps Deps, retention time.Duration) *Manager {
	return &Manager{
		cfg: cfg, deps: deps, retention: retention,
		live: map[uint64]map[*Session]struct{}{}, byID: map[uint64]*Session{},
	}
}

// Configure has sessions that begin from now on keep to cfg. Those that run keep to what they have begun with.
func (m *Manager) Configure(cfg Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg = cfg
}

// Create returns a new session, known from now on, with a number of its own. Its log takes its memory from where it is
// told. Its Run begins it; Retire ends it.
func (m *Manager) Create(who Identity, request *wirepb.Request, memory stream.Memory, open Open) *Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given++
	who.ID = m.given
	s := New(who, request, memory, open, m.cfg, m.deps)
	if m.live[who.Connection] == nil {
		m.live[who.Connection] = map[*Session]struct{}{}
	}
	m.live[who.Connection][s] = struct{}{}
	m.byID[who.ID] = s
	return s
}

// Retire removes a session that has ended from those that run; how it ended stays listed for the retention.
func (m *Manager) Retire(s *Session) {
	last := s.listed()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.live[s.who.Connection][s]; !ok {
		return
	}
	delete(m.live[s.who.Connection], s)
	if len(m.live[s.who.Connection]) == 0 {
		delete(m.live, s.who.Connection)
	}
	delete(m.byID, s.who.ID)
	m.ended = append(m.ended, last)
	m.forget()
}

// forget drops what has been listed for long enough. m.mu is held.
func (m *Manager) forget() {
	old := time.Now().Add(-m.retention)
	n := 0
	if len(m.ended) > maxEnded {
		n = maxEnded / 10 // not one at a time: all others move up
	}
	for n < len(m.ended) && m.ended[n].Ended.Before(old) {
		n++
	}
	m.ended = slices.Delete(m.ended, 0, n)
}

// Running returns how many sessions run.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byID)
}

// Get returns the running sessions among those with the given ids, in their order.
func (m *Manager) Get(ids ...uint64) []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*Session, 0, len(ids))
	for _, id := range ids {
		if s := m.byID[id]; s != nil {
			all = append(all, s)
		}
	}
	return all
}

// Of returns the running sessions of a connection, by stream.
func (m *Manager) Of(connection uint64) []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return byStream(m.live[connection])
}

// Unread returns the running sessions of a holder whose clients read nothing, by age.
func (m *Manager) Unread(holder string) []*Session {
	m.mu.Lock()
	all := m.running()
	m.mu.Unlock()
	return slices.DeleteFunc(all, func(s *Session) bool { return s.who.Holder != holder || !s.Unread() })
}

// byStream returns the sessions of one connection in the order of their streams.
func byStream(set map[*Session]struct{}) []*Session {
	all := make([]*Session, 0, len(set))
	for s := range set {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Session) int { return cmp.Compare(a.who.StreamID, b.who.StreamID) })
	return all
}

// Find returns the running session of a stream. Stream 0 stands for the only one of its connection.
func (m *Manager) Find(connectionID string, stream uint64) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, set := range m.live {
		all := byStream(set)
		if all[0].who.ConnectionID != connectionID {
			continue
		}
		if stream == 0 && len(all) > 1 {
			return nil, wire.Errorf(wire.CodeInvalid,
				"%s has %d streams; name one with --stream", connectionID, len(all))
		}
		for _, s := range all {
			if stream == 0 || s.who.StreamID == stream {
				return s, nil
			}
		}
		return nil, wire.Errorf(wire.CodeNotFound, "no stream %d runs on %s", stream, connectionID)
	}
	return nil, wire.Errorf(wire.CodeNotFound, "no stream runs on a connection %q", connectionID)
}

// List returns the sessions in the given states, or all, by age: those that run, and those that have ended.
func (m *Manager) List(states ...State) []Listed { return m.Page(0, math.MaxInt, states...) }

// Page returns the part of List that follows the session with the number after, and no more than limit of it.
func (m *Manager) Page(after uint64, limit int, states ...State) []Listed {
	m.mu.Lock()
	m.forget()
	running, ended := m.running(), slices.Clone(m.ended)
	m.mu.Unlock()
	slices.SortFunc(ended, func(a, b *Listed) int { return cmp.Compare(a.ID, b.ID) })
	list := make([]Listed, 0, min(len(running)+len(ended), limit))
	for len(list) < limit && len(running)+len(ended) > 0 {
		var next *Listed
		if len(ended) == 0 || len(running) > 0 && running[0].who.ID < ended[0].ID {
			if running[0].who.ID > after {
				next = running[0].listed()
			}
			running = running[1:]
		} else {
			next, ended = ended[0], ended[1:]
		}
		if next != nil && next.ID > after && (len(states) == 0 || slices.Contains(states, next.State)) {
			list = append(list, *next)
		}
	}
	return list
}

// listed is the session as it is now.
func (s *Session) listed() *Listed { return &Listed{s.who.ID, s.who.ConnectionID, s.Snapshot()} }

// Swaps returns the swaps under way, the oldest first.
func (m *Manager) Swaps() []migration.Record {
	m.mu.Lock()
	running := m.running()
	m.mu.Unlock()
	swaps := []migration.Record{}
	for _, s := range running {
		if r := s.Swap(); r != nil {
			swaps = append(swaps, *r)
		}
	}
	slices.SortStableFunc(swaps, func(a, b migration.Record) int { return a.Started.Compare(b.Started) })
	return swaps
}

// running returns the sessions that run, by age. m.mu is held.
func (m *Manager) running() []*Session {
	all := slices.Collect(maps.Values(m.byID))
	slices.SortFunc(all, func(a, b *Session) int { return cmp.Compare(a.who.ID, b.who.ID) })
	return all
}

// Count returns how many sessions there are in each state. Every state has a number.
func (m *Manager) Count() map[State]int {
	count := make(map[State]int, len(States))
	for _, state := range States {
		count[state] = 0
	}
	for _, l := range m.List() {
		count[l.State]++
	}
	return count
}
