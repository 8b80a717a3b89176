package transfer

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of a Store.
var (
	ErrFull   = errors.New("no room for the snapshot")
	ErrClosed = errors.New("the store is closed")
)

// Key says whose state a snapshot is. A session may have two at once.
type Key struct {
	Director   string // the instance that numbers the session
	Session    uint64
	Checkpoint bool // kept for when the worker dies; otherwise taken for a move under way
}

// Store holds snapshots in memory, within a bound, until they are dropped or their time is over. It is safe for
// concurrent use. It owns no goroutine, but timers: Close stops them.
type Store struct {
	limit int

	mu      sync.Mutex
	entries map[Key]*entry
	uses    map[digest]*use
	bytes   int
	closed  bool
}

// entry is a snapshot in its place. Whatever takes it out of the map ends the transfers of it.
type entry struct {
	key      Key
	snapshot *Snapshot
	expiry   *time.Timer // nil: never
	uses     []*use      // tokens by which it is being pulled, oldest first; at most maxUses
}

// NewStore returns an empty store for limit bytes of compressed snapshots.
func NewStore(limit int) *Store {
	return &Store{limit: limit, entries: make(map[Key]*entry), uses: make(map[digest]*use)}
}

// Put stores a snapshot for ttl, or until it is dropped if ttl is 0, in place of an older one of the same key. The error
// is ErrFull if that exceeds the bound; then the older one stays.
func (s *Store) Put(key Key, snapshot *Snapshot, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	after := s.bytes + snapshot.Bytes()
	if old, ok := s.entries[key]; ok {
		after -= old.snapshot.Bytes()
	}
	if after > s.limit {
		return fmt.Errorf("%w: %d bytes beside %d, allowed are %d", ErrFull, snapshot.Bytes(), after-snapshot.Bytes(), s.limit)
	}
	s.remove(key)
	e := &entry{key: key, snapshot: snapshot}
	if ttl > 0 {
		e.expiry = time.AfterFunc(ttl, func() { s.expire(key, e) })
	}
	s.entries[key] = e
	s.bytes += snapshot.Bytes()
	return nil
}

// Get returns the snapshot of a key, if there is one.
func (s *Store) Get(key Key) (*Snapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		return nil, false
	}
	return e.snapshot, true
}

// Drop gives up the snapshot of a key, if there is one. Whoever is pulling it is refused the rest.
func (s *Store) Drop(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
}

// DropDirector gives up all snapshots of one director's sessions.
func (s *Store) DropDirector(director string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.entries {
		if key.Director == director {
			s.remove(key)
		}
	}
}

// Bytes returns the bytes of all snapshots, compressed.
func (s *Store) Bytes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Close gives up everything. Put fails afterwards.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for key := range s.entries {
		s.remove(key)
	}
}

// expire ends an entry, unless another one has taken its place.
func (s *Store) expire(key Key, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key] == e {
		s.remove(key)
	}
}

// remove is called with mu locked.
func (s *Store) remove(key Key) {
	e, ok := s.entries[key]
	if !ok {
		return
	}
	delete(s.entries, key)
	s.bytes -= e.snapshot.Bytes()
	if e.expiry != nil {
		e.expiry.Stop()
	}
	s.endAll(e, errGone)
}
