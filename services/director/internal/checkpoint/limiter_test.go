package checkpoint_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
)

// queue are slots that were asked for, by number.
type queue struct {
	limiter *checkpoint.Limiter
	asked   []*checkpoint.Slot

	mu   sync.Mutex
	came []int
}

func (q *queue) ask(n int) {
	for range n {
		number := len(q.asked)
		q.asked = append(q.asked, q.limiter.Ask("a", func(*checkpoint.Slot) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.came = append(q.came, number)
		}))
	}
}

// require compares which came since the last time.
func (q *queue) require(t *testing.T, want ...int) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.came, want) {
		t.Errorf("came: %v, want %v", q.came, want)
	}
	q.came = nil
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{limiter: checkpoint.NewLimiter()}
		q.ask(checkpoint.AtOnce + 4)
		q.require(t, 0, 1, 2, 3)
		if c := q.limiter.Counts(); c.Waiting != 4 {
			t.Errorf("%d wait", c.Waiting)
		}
		elsewhere := false
		q.limiter.Ask("b", func(*checkpoint.Slot) { elsewhere = true }).End()
		if !elsewhere {
			t.Error("one worker's sessions wait for those of another")
		}
		time.Sleep(time.Second)
		q.require(t)
		q.asked[4].End() // it does not want it any more
		q.asked[1].End()
		time.Sleep(checkpoint.CooldownFactor*time.Second - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 5)
		q.asked[1].End() // has no effect again
		q.asked[4].End()
		q.asked[5].End() // took no time
		q.require(t, 6)
		time.Sleep(time.Hour)
		q.asked[6].End()
		time.Sleep(checkpoint.MaxCooldown - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 7)
		q.ask(1)
		q.require(t) // 0, 2, 3 and 7 have them
		for _, slot := range q.asked {
			slot.End()
		}
		time.Sleep(checkpoint.MaxCooldown)
		q.require(t, 8) // 7 took no time
		if c := q.limiter.Counts(); c.Waiting != 0 || q.limiter.Workers() != 0 {
			t.Errorf("left over: %+v, %d workers", c, q.limiter.Workers())
		}
	})
}
