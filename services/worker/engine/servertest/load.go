package servertest

import (
	"context"
	"sync"
)

// load is what a server works for. It is safe for concurrent use.
type load struct {
	slots chan struct{} // nil for no limit

	mu      sync.Mutex
	running int
	waiting int
	tokens  int
	events  int
}

func newLoad(capacity int) *load {
	l := &load{}
	if capacity > 0 {
		l.slots = make(chan struct{}, capacity)
	}
	return l
}

// enter waits for a place. leave is to be called once.
func (l *load) enter(ctx context.Context) (leave func(), err error) {
	l.add(0, 1)
	defer l.add(0, -1)
	if l.slots != nil {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	l.add(1, 0)
	return func() {
		l.add(-1, 0)
		if l.slots != nil {
			<-l.slots
		}
	}, nil
}

func (l *load) add(running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running += running
	l.waiting += waiting
}

// now returns how many requests are generated for, and how many wait.
func (l *load) now() (running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running, l.waiting
}

// busy says whether more than one request is generated for.
func (l *load) busy() bool {
	running, _ := l.now()
	return running > 1
}

// count counts a token.
func (l *load) count() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens++
}

// ended takes note of a stream that has ended.
func (l *load) ended(events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = events
}

// counts returns the number of tokens made, and of events of the last stream.
func (l *load) counts() (tokens, events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens, l.events
}
