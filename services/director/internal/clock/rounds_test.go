package clock

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c StallProof
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+Tick/2)
		defer cancel()
		count := map[time.Duration]int{}
		for _, period := range []time.Duration{0, Tick, 500 * time.Millisecond, longestRound * Tick, time.Hour} {
			c.Every(period, func() { count[period]++ })
		}
		var stop func()
		calls := 0
		stop = c.Every(time.Second, func() {
			if calls++; calls == 3 {
				stop()
			}
		})
		if err := c.Run(ctx, func() {}); err != nil {
			t.Fatal(err)
		}
		got := []int{count[0], count[Tick], count[500*time.Millisecond], count[longestRound*Tick], count[time.Hour], calls}
		if want := []int{500, 500, 20, 7, 7, 3}; !slices.Equal(got, want) {
			t.Errorf("in ten seconds %v calls, want %v", got, want)
		}
		left := 0
		for _, slot := range c.rounds.slots {
			left += len(slot)
		}
		if left != len(count) {
			t.Errorf("%d are still called, want %d", left, len(count))
		}
	})
}

// BenchmarkTick is what one look at a stream costs, without what it looks at.
func BenchmarkTick(b *testing.B) {
	var c StallProof
	looks := 0
	for range 10_000 {
		c.Every(25*Tick, func() { looks++ })
	}
	for b.Loop() {
		for range 25 {
			c.rounds.tick()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(looks), "ns/look")
}
