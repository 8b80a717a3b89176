// Package checkpointtest has a queue for checkpoints, for tests in a synctest bubble.
package checkpointtest

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
)

// Queue are slots at worker "a" that were asked for, by number.
type Queue struct {
	Limiter *checkpoint.Limiter
	Asked   []*checkpoint.Slot

	mu   sync.Mutex
	came []int
}

// Ask asks for n more.
func (q *Queue) Ask(n int) {
	for range n {
		number := len(q.Asked)
		q.Asked = append(q.Asked, q.Limiter.Ask("a", func(*checkpoint.Slot) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.came = append(q.came, number)
		}))
	}
}

// Require compares which came since the last time.
func (q *Queue) Require(t *testing.T, want ...int) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.came, want) {
		t.Errorf("came: %v, want %v", q.came, want)
	}
	q.came = nil
}
