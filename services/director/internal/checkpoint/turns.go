package checkpoint

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// AtOnce is how many streams of one worker have their turn at once.
	AtOnce = 4
	// RestFactor is how many times longer than a checkpoint took its place stays empty afterwards, up to LongestRest:
	// of what machines and network can carry, checkpoints take a part, and leave the rest to tokens. Where the states
	// are many or large they become older instead.
	RestFactor  = 3
	LongestRest = 10 * time.Second
	// LongestTurn is when others need not wait any longer: a worker that never answers does not keep them from theirs.
	LongestTurn = 10 * time.Second
)

// Turns has the streams of each worker make their checkpoints a few at a time, in the order in which they ask. It is safe
// for concurrent use. It owns no goroutine.
type Turns struct {
	mu sync.Mutex
	at map[string]*lane // by label of the worker; those that somebody waits for, or has, or rests

	made, failed atomic.Uint64 // checkpoints
}

// TurnCounts is how checkpoints go on, for people and programs.
type TurnCounts struct {
	Made    uint64 `json:"made"`
	Failed  uint64 `json:"failed"`
	Waiting int    `json:"waiting"` // streams whose checkpoint is due, and not their turn
}

// Counts returns the counts of this moment.
func (t *Turns) Counts() TurnCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := TurnCounts{Made: t.made.Load(), Failed: t.failed.Load()}
	for _, l := range t.at {
		counts.Waiting += len(l.waiting)
	}
	return counts
}

// lane is one worker's.
type lane struct {
	free    int
	waiting []*Turn
}

// NewTurns returns Turns of which all are free.
func NewTurns() *Turns { return &Turns{at: make(map[string]*lane)} }

// Turn is what one session waits for, or has.
type Turn struct {
	of    *Turns
	label string
	come  func(*Turn)
	since time.Time // when it came; zero before
	over  bool
}

// Ask asks for a turn at a worker. come is called when it has come, from any goroutine, maybe before Ask returns; it must
// not block.
func (t *Turns) Ask(label string, come func(*Turn)) *Turn {
	turn := &Turn{of: t, label: label, come: come}
	t.mu.Lock()
	l := t.at[label]
	if l == nil {
		l = &lane{free: AtOnce}
		t.at[label] = l
	}
	l.waiting = append(l.waiting, turn)
	t.mu.Unlock()
	t.next(label, 0)
	return turn
}

// End gives a turn back, or says that it is not wanted any more. More than once is no error.
func (turn *Turn) End() {
	t := turn.of
	t.mu.Lock()
	over, since := turn.over, turn.since
	turn.over = true
	if l := t.at[turn.label]; l != nil && since.IsZero() {
		l.waiting = slices.DeleteFunc(l.waiting, func(other *Turn) bool { return other == turn })
	}
	t.mu.Unlock()
	if over || since.IsZero() {
		return
	}
	if rest := min(RestFactor*time.Since(since), LongestRest); rest > 0 {
		time.AfterFunc(rest, func() { t.next(turn.label, 1) })
	} else {
		t.next(turn.label, 1)
	}
}

// next lets the first ones come, after so many places at a worker became free.
func (t *Turns) next(label string, freed int) {
	t.mu.Lock()
	l := t.at[label]
	if l == nil { // given up meanwhile, by whoever asked
		t.mu.Unlock()
		return
	}
	l.free += freed
	come := l.waiting[:min(l.free, len(l.waiting))]
	l.waiting = l.waiting[len(come):]
	l.free -= len(come)
	if l.free == AtOnce && len(l.waiting) == 0 {
		delete(t.at, label)
	}
	for _, turn := range come {
		turn.since = time.Now()
	}
	t.mu.Unlock()
	for _, turn := range come {
		turn.come(turn)
	}
}
