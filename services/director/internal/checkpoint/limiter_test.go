package checkpoint_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/checkpoint/checkpointtest"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &checkpointtest.Queue{Limiter: checkpoint.NewLimiter()}
		q.Ask(checkpoint.AtOnce + 4)
		q.Require(t, 0, 1, 2, 3)
		if c := q.Limiter.Counts(); c.Waiting != 4 {
			t.Errorf("%d wait", c.Waiting)
		}
		elsewhere := false
		q.Limiter.Ask("b", func(*checkpoint.Slot) { elsewhere = true }).End()
		if !elsewhere {
			t.Error("one worker's sessions wait for those of another")
		}
		time.Sleep(time.Second)
		q.Require(t)
		q.Asked[4].End() // it does not want it any more
		q.Asked[1].End()
		time.Sleep(checkpoint.CooldownFactor*time.Second - 1)
		q.Require(t)
		time.Sleep(time.Nanosecond)
		q.Require(t, 5)
		q.Asked[1].End() // has no effect again
		q.Asked[4].End()
		q.Asked[5].End() // took no time
		q.Require(t, 6)
		time.Sleep(time.Hour)
		q.Asked[6].End()
		time.Sleep(checkpoint.MaxCooldown - 1)
		q.Require(t)
		time.Sleep(time.Nanosecond)
		q.Require(t, 7)
		q.Ask(1)
		q.Require(t) // 0, 2, 3 and 7 have them
		for _, slot := range q.Asked {
			slot.End()
		}
		time.Sleep(checkpoint.MaxCooldown)
		q.Require(t, 8) // 7 took no time
		if c := q.Limiter.Counts(); c.Waiting != 0 || q.Limiter.Workers() != 0 {
			t.Errorf("left over: %+v, %d workers", c, q.Limiter.Workers())
		}
	})
}
