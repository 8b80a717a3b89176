// Package shares divides what a director has among those who use it. While there is room anybody may have all of it; of
// the last eighth nobody gets more than a small part, so that those who have much are refused first, and those who have
// little find room however greedy some of the others are.
package shares

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/connswap/connswap/shared/wire"
)

// Kind is something of which a director has a limited amount.
type Kind uint8

// Kinds.
const (
	Connections Kind = iota
	Requests         // that have begun and are not whole: half-open
	Streams
	Bytes   // of memory, for all that clients make a director hold
	Sockets // of connections over TCP: each takes one of the process's descriptors
	kinds
)

// names are how each kind is called, in refusals and in the status, and what bounds it.
var names = [kinds]struct{ plural, variable string }{
	Connections: {"connections", "DIRECTOR_MAX_CONNECTIONS"},
	Requests:    {"unfinished requests", "DIRECTOR_MAX_BYTES"},
	Streams:     {"streams", "DIRECTOR_MAX_SESSIONS"},
	Bytes:       {"bytes", "DIRECTOR_MAX_BYTES"},
	Sockets:     {"connections over TCP", "half of the files that it may have open"},
}

const (
	// reserved is the part of everything that is kept for those who have little: an eighth.
	reserved = 8
	// little is the part of what is left that somebody may have who gets some of that: a sixteenth.
	little = 16
)

// least is what is little in any case.
var least = [kinds]int64{Connections: 1, Requests: 1, Streams: 1, Bytes: 256 << 10, Sockets: 1}

// Limits is how much there is of each kind.
type Limits [kinds]int64

// HalfOpen is how many requests may be unfinished where so many bytes may be held: beyond these, what has come of them
// may take an eighth of that.
func HalfOpen(bytes int64) int64 {
	const each, most = 256 << 10, 1024 // bytes, what QUIC lets a client send ahead of what is read
	return min(max(bytes/8/each, 16), most)
}

// Ledger knows who has how much. It is safe for concurrent use. It has entries for those only who have something, so
// that the bounds on what can be had bound it too.
type Ledger struct {
	mu      sync.Mutex
	limits  Limits
	used    [kinds]int64
	refused [kinds]uint64
	holders map[string]*Holder
}

// Holder is somebody who uses the director, by any number of connections.
type Holder struct {
	name   string
	ledger *Ledger
	users  int // of this Holder; guarded by ledger.mu, as is has
	has    [kinds]int64
}

// New returns a Ledger in which nobody has anything.
func New(limits Limits) *Ledger { return &Ledger{limits: limits, holders: map[string]*Holder{}} }

// SetLimits changes how much there is. Who has more than he would get now keeps it.
func (l *Ledger) SetLimits(limits Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
}

// Join returns the holder of a name. Leave has to follow.
func (l *Ledger) Join(name string) *Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holders[name]
	if h == nil {
		h = &Holder{name: name, ledger: l}
		l.holders[name] = h
	}
	h.users++
	return h
}

// Leave ends a Join.
func (h *Holder) Leave() {
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(h.ledger.holders, h.name)
	}
}

// Name says who it is.
func (h *Holder) Name() string { return h.name }

// Take takes n of a kind for somebody new to it, or returns a refusal that says who has how much. Give gives it back.
func (h *Holder) Take(kind Kind, n int) error { return h.take(kind, int64(n), false) }

// Keep takes n more of a kind for something that is there already, which only the end of all there is can refuse.
func (h *Holder) Keep(kind Kind, n int) error { return h.take(kind, int64(n), true) }

func (h *Holder) take(kind Kind, n int64, there bool) error {
	l := h.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	free := l.limits[kind] - l.used[kind]
	room := n <= free
	if short := free-n < l.limits[kind]/reserved; short && !there {
		room = room && h.has[kind]+n <= max(free/little, least[kind])
	}
	if !room {
		l.refused[kind]++
		return wire.Errorf(wire.CodeLimit, "the director has no room for more %s: of %d in all (%s) %d are taken, %d of them by %s",
			names[kind].plural, l.limits[kind], names[kind].variable, l.used[kind], h.has[kind], h.name)
	}
	l.used[kind] += n
	h.has[kind] += n
	return nil
}

// Give gives back n of a kind.
func (h *Holder) Give(kind Kind, n int) {
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	h.ledger.used[kind] -= int64(n)
	h.has[kind] -= int64(n)
}

// Short reports whether so much of a kind is taken that only those who have little get more.
func (l *Ledger) Short(kind Kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits[kind]-l.used[kind] <= l.limits[kind]/reserved
}

// Most returns who has something of a kind, those who have most first.
func (l *Ledger) Most(kind Kind) []*Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := func(h *Holder) int64 { return h.has[kind] }
	all := slices.SortedFunc(maps.Values(l.holders), func(a, b *Holder) int {
		return cmp.Or(cmp.Compare(has(b), has(a)), cmp.Compare(a.name, b.name))
	})
	return slices.DeleteFunc(all, func(h *Holder) bool { return has(h) == 0 })
}
