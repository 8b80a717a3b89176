package clock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTimePassesInTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c StallProof
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+Tick/2)
		defer cancel()
		ticks := 0
		if err := c.Run(ctx, func() { ticks++ }); err != nil {
			t.Fatal(err)
		}
		if c.Now() != 10*time.Second || ticks != int(10*time.Second/Tick) {
			t.Errorf("%v passed in %d ticks", c.Now(), ticks)
		}
	})
}

func TestStoppedTimeDoesNotCount(t *testing.T) {
	var c StallProof
	c.advance(Tick)
	then := c.Now()
	c.advance(time.Hour) // the process was stopped
	if passed := c.Since(then); passed != 2*Tick {
		t.Errorf("an hour without a tick counts for %v", passed)
	}
}
