package checkpoint

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// AtOnce is how many slots each worker has: so many of its streams make checkpoints at once.
	AtOnce = 4
	// CooldownFactor is how many times longer than its checkpoint took a slot stays empty afterwards, up to
	// MaxCooldown: checkpoints take a part of what machines and network can carry, and leave what remains to tokens.
	// Where the states are many or large the checkpoints become older instead.
	CooldownFactor = 3
	MaxCooldown    = 10 * time.Second
	// SlotTimeout is how long a checkpoint has its slot at most, whether it is made by then or not: a worker that never
	// answers does not keep the other streams from theirs.
	SlotTimeout = 10 * time.Second
)

// Limiter has the streams of each worker make their checkpoints a few at a time, in the order in which they ask for a
// slot. It is safe for concurrent use. It owns no goroutine, but timers of MaxCooldown at most, which touch nothing but
// itself. Its lock is held across no call to a stream.
type Limiter struct {
	mu sync.Mutex
	at map[string]*lane // by label of the worker; those of which a slot is waited for, taken, or in its cooldown

	made, failed atomic.Uint64 // checkpoints
}

// Counts is how checkpoints go on, for people and programs.
type Counts struct {
	Made    uint64 `json:"made"`
	Failed  uint64 `json:"failed"`
	Waiting int    `json:"waiting"` // streams whose checkpoint is due, and which have no slot yet
}

// Counts returns the counts of this moment.
func (t *Limiter) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := Counts{Made: t.made.Load(), Failed: t.failed.Load()}
	for _, l := range t.at {
		counts.Waiting += len(l.waiting)
	}
	return counts
}

// lane is one worker's slots, and the streams that wait for one.
type lane struct {
	free    int
	waiting []*Slot
}

// NewLimiter returns a Limiter whose slots are all free.
func NewLimiter() *Limiter { return &Limiter{at: make(map[string]*lane)} }

// Slot is the permission to make one checkpoint, which a stream waits for, or has. Its fields are guarded by the
// Limiter.
type Slot struct {
	of      *Limiter
	label   string
	granted func(*Slot)
	since   time.Time // when it was granted; zero before
	over    bool      // given back, or not wanted any more
}

// Ask asks for a slot at a worker. granted is called once the stream has it, on any goroutine, maybe before Ask
// returns; it must not block.
func (t *Limiter) Ask(label string, granted func(*Slot)) *Slot {
	slot := &Slot{of: t, label: label, granted: granted}
	t.mu.Lock()
	l := t.at[label]
	if l == nil {
		l = &lane{free: AtOnce}
		t.at[label] = l
	}
	l.waiting = append(l.waiting, slot)
	t.mu.Unlock()
	t.next(label, 0)
	return slot
}

// End gives a slot back, or says that it is not wanted any more. Calling it again does nothing.
func (slot *Slot) End() {
	t := slot.of
	t.mu.Lock()
	over, since := slot.over, slot.since
	slot.over = true
	if l := t.at[slot.label]; l != nil && since.IsZero() {
		l.waiting = slices.DeleteFunc(l.waiting, func(other *Slot) bool { return other == slot })
	}
	t.mu.Unlock()
	if over || since.IsZero() {
		return
	}
	if cooldown := min(CooldownFactor*time.Since(since), MaxCooldown); cooldown > 0 {
		time.AfterFunc(cooldown, func() { t.next(slot.label, 1) })
	} else {
		t.next(slot.label, 1)
	}
}

// next grants the first ones that wait, after so many slots of a worker became free.
func (t *Limiter) next(label string, freed int) {
	t.mu.Lock()
	l := t.at[label]
	if l == nil { // given up meanwhile, by whoever asked
		t.mu.Unlock()
		return
	}
	l.free += freed
	granted := l.waiting[:min(l.free, len(l.waiting))]
	l.waiting = l.waiting[len(granted):]
	l.free -= len(granted)
	if l.free == AtOnce && len(l.waiting) == 0 {
		delete(t.at, label)
	}
	for _, slot := range granted {
		slot.since = time.Now()
	}
	t.mu.Unlock()
	for _, slot := range granted {
		slot.granted(slot)
	}
}
