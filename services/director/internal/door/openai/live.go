package openai

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// live are the exchanges whose streams run.
type live struct {
	running sync.WaitGroup // from enter to leave

	mu       sync.Mutex
	byNumber map[uint64]*exchange
	closed   bool // no more begin
}

// enter reports whether an exchange may begin. Each that may has to leave.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Add(1)
	}
	return !l.closed
}

func (l *live) leave() { l.running.Done() }

func (l *live) add(e *exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byNumber[e.number] = e
}

func (l *live) remove(e *exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byNumber, e.number)
}

// close lets no more begin, and waits for those that run.
func (l *live) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
}

// all returns them by age.
func (l *live) all() []*exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.byNumber), func(a, b *exchange) int { return cmp.Compare(a.number, b.number) })
}

func (l *live) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byNumber)
}
