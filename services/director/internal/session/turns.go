package session

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkpointsAtOnce bounds the checkpoints under way in a director.
	checkpointsAtOnce = 4
	// restFactor is how many times longer than a checkpoint took its place stays empty afterwards, up to longestRest:
	// of what machines and network can carry, checkpoints take a part, and leave the rest to tokens. Where the states
	// are many or large they become older instead.
	restFactor  = 3
	longestRest = 10 * time.Second
	// longestTurn is when others need not wait any longer: a worker that never answers does not keep them from theirs.
	longestTurn = 10 * time.Second
)

// Turns has sessions make their checkpoints a few at a time, in the order in which they ask. It is safe for concurrent
// use. It owns no goroutine.
type Turns struct {
	mu      sync.Mutex
	free    int
	waiting []*Turn

	made, failed atomic.Uint64 // checkpoints
}

// TurnCounts is how checkpoints go on, for people and programs.
type TurnCounts struct {
	Made    uint64 `json:"made"`
	Failed  uint64 `json:"failed"`
	Waiting int    `json:"waiting"` // sessions whose checkpoint is due, and not their turn
}

// Counts returns the counts of this moment.
func (t *Turns) Counts() TurnCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TurnCounts{Made: t.made.Load(), Failed: t.failed.Load(), Waiting: len(t.waiting)}
}

// NewTurns returns Turns of which all are free.
func NewTurns() *Turns { return &Turns{free: checkpointsAtOnce} }

// Turn is what one session waits for, or has.
type Turn struct {
	of    *Turns
	come  func(*Turn)
	since time.Time // when it came; zero before
	over  bool
}

// Ask asks for a turn. come is called when it has come, from any goroutine, maybe before Ask returns; it must not block.
func (t *Turns) Ask(come func(*Turn)) *Turn {
	turn := &Turn{of: t, come: come}
	t.mu.Lock()
	t.waiting = append(t.waiting, turn)
	t.mu.Unlock()
	t.next(0)
	return turn
}

// End gives a turn back, or says that it is not wanted any more. More than once is no error.
func (turn *Turn) End() {
	t := turn.of
	t.mu.Lock()
	over, since := turn.over, turn.since
	turn.over = true
	if since.IsZero() {
		t.waiting = slices.DeleteFunc(t.waiting, func(other *Turn) bool { return other == turn })
	}
	t.mu.Unlock()
	if over || since.IsZero() {
		return
	}
	if rest := min(restFactor*time.Since(since), longestRest); rest > 0 {
		time.AfterFunc(rest, func() { t.next(1) })
	} else {
		t.next(1)
	}
}

// next lets the first ones come, after so many places became free.
func (t *Turns) next(freed int) {
	t.mu.Lock()
	t.free += freed
	come := t.waiting[:min(t.free, len(t.waiting))]
	t.waiting = t.waiting[len(come):]
	t.free -= len(come)
	for _, turn := range come {
		turn.since = time.Now()
	}
	t.mu.Unlock()
	for _, turn := range come {
		turn.come(turn)
	}
}
