package routing

import (
	"math"
	"sync"
	"time"
)

// memory is how long a peak is remembered: after this time without new ones it counts for 1/e.
const memory = 10 * time.Second

// Latency is the time between the tokens of a worker's streams as a peak-EWMA: it follows a rise at once, and a fall
// slowly. A worker of which nothing is heard is forgotten in the same way, so that it is tried again. It is safe for
// concurrent use; of nil nothing is measured.
type Latency struct {
	mu    sync.Mutex
	value float64 // seconds
	at    time.Time
}

// Observe takes a measurement into account.
func (l *Latency) Observe(interval time.Duration, now time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x := interval.Seconds()
	l.value = max(x, x+(l.value-x)*l.decay(now))
	l.at = now
}

// Value returns the estimate, in seconds; 0 if nothing was ever measured.
func (l *Latency) Value(now time.Time) float64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value * l.decay(now)
}

// decay is called with l.mu held.
func (l *Latency) decay(now time.Time) float64 {
	return math.Exp(-max(0, now.Sub(l.at).Seconds()) / memory.Seconds())
}
