package event

import (
	"context"
	"sync"
	"time"
)

// Kept is how many events a bus keeps for its subscribers.
const Kept = 4096

// Bus takes events and passes them on. It is safe for concurrent use, starts no goroutine, and waits for nobody. A nil Bus
// drops everything.
type Bus struct {
	observers []func(Event)

	mu    sync.Mutex
	total uint64        // events so far: the number of the newest
	ring  []Event       // the newest ones: number n at n % Kept
	news  chan struct{} // closed when there is another one; nil if nobody waits
}

// NewBus returns a bus whose observers are called for each event, in order of their numbers, by whoever publishes it and with
// a lock held: they must be quick, and must not call the bus.
func NewBus(observers ...func(Event)) *Bus {
	return &Bus{observers: observers, ring: make([]Event, 0, 64)}
}

// Publish passes on that something has happened. It never blocks.
func (b *Bus) Publish(body Body) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total++
	e := Event{ID: b.total, Time: time.Now(), Body: body}
	if len(b.ring) < Kept {
		b.ring = append(b.ring, e)
	} else {
		b.ring[(b.total-1)%Kept] = e
	}
	for _, observe := range b.observers {
		observe(e)
	}
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
}

// Last returns the number of the newest event; 0 for none.
func (b *Bus) Last() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// Subscription reads the events of a bus. One goroutine uses it.
type Subscription struct {
	bus   *Bus
	after uint64
	wants func(Event) bool
}

// Subscribe returns a subscription to the events after one with a number that wants reports true for; nil for all.
func (b *Bus) Subscribe(after uint64, wants func(Event) bool) *Subscription {
	if wants == nil {
		wants = func(Event) bool { return true }
	}
	return &Subscription{bus: b, after: after, wants: wants}
}

// Next returns the next event, and waits for one until ctx ends. Where some are no longer kept it returns a Missed first,
// with the number of the last that was missed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		e, ok, news := s.take()
		if ok {
			return e, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// take returns the next event that is wanted, or what is closed when there is another one.
func (s *Subscription) take() (e Event, ok bool, news <-chan struct{}) {
	b := s.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.after > b.total { // a number of the process before: all that this one has is news
		s.after = 0
	}
	if oldest := b.total - uint64(len(b.ring)); s.after < oldest {
		missed := oldest - s.after
		s.after = oldest
		return Event{ID: oldest, Time: time.Now(), Body: Missed{missed}}, true, nil
	}
	for s.after < b.total {
		s.after++
		if e := b.ring[(s.after-1)%Kept]; s.wants(e) {
			return e, true, nil
		}
	}
	if b.news == nil {
		b.news = make(chan struct{})
	}
	return Event{}, false, b.news
}
