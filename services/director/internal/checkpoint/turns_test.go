package checkpoint_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
)

// queue are turns that were asked for, by number.
type queue struct {
	turns *checkpoint.Turns
	asked []*checkpoint.Turn

	mu   sync.Mutex
	came []int
}

func (q *queue) ask(n int) {
	for range n {
		number := len(q.asked)
		q.asked = append(q.asked, q.turns.Ask("a", func(*checkpoint.Turn) {
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
		q := &queue{turns: checkpoint.NewTurns()}
		q.ask(checkpoint.AtOnce + 4)
		q.require(t, 0, 1, 2, 3)
		if c := q.turns.Counts(); c.Waiting != 4 {
			t.Errorf("%d wait", c.Waiting)
		}
		elsewhere := false
		q.turns.Ask("b", func(*checkpoint.Turn) { elsewhere = true }).End()
		if !elsewhere {
			t.Error("one worker's sessions wait for those of another")
		}
		time.Sleep(time.Second)
		q.require(t)
		q.asked[4].End() // it does not want it any more
		q.asked[1].End()
		time.Sleep(checkpoint.RestFactor*time.Second - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 5)
		q.asked[1].End() // has no effect again
		q.asked[4].End()
		q.asked[5].End() // took no time
		q.require(t, 6)
		time.Sleep(time.Hour)
		q.asked[6].End()
		time.Sleep(checkpoint.LongestRest - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 7)
		q.ask(1)
		q.require(t) // 0, 2, 3 and 7 have them
		for _, turn := range q.asked {
			turn.End()
		}
		time.Sleep(checkpoint.LongestRest)
		q.require(t, 8) // 7 took no time
		if c := q.turns.Counts(); c.Waiting != 0 || q.turns.Workers() != 0 {
			t.Errorf("left over: %+v, %d workers", c, q.turns.Workers())
		}
	})
}
