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

// TestStall has the process stopped for 35 s.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c StallProof
		ctx, cancel := context.WithCancel(t.Context())
		stop, stopped := make(chan time.Duration, 1), make(chan struct{})
		go func() {
			defer close(stopped)
			_ = c.Run(ctx, func() {
				select {
				case d := <-stop:
					time.Sleep(d)
				default:
				}
			})
		}()
		expect := func(when string, want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := c.Stall(); got.Round(100*time.Millisecond) != want {
				t.Errorf("%s: a stall of %v, want %v", when, got, want)
			}
		}
		expect("at the start", 0)
		time.Sleep(time.Second)
		expect("in good order", 0)
		stop <- 35 * time.Second
		time.Sleep(30 * time.Second)
		expect("before the clock knows", 30*time.Second)
		time.Sleep(5*time.Second + 2*Tick)
		expect("coming round", 35*time.Second)
		time.Sleep(aftermath)
		expect("later", 0)
		cancel()
		<-stopped
	})
}

// TestLate has what hangs on the clock get stuck, and then the clock stop in order.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c StallProof
		if late := c.Late(); late != 0 {
			t.Errorf("%v before it runs", late)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stuck, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			_ = c.Run(ctx, func() { <-stuck })
		}()
		time.Sleep(time.Minute)
		if late := c.Late(); late < 59*time.Second {
			t.Errorf("%v after a minute", late)
		}
		close(stuck)
		time.Sleep(time.Second)
		if late := c.Late(); late > Tick {
			t.Errorf("%v when it goes on", late)
		}
		cancel()
		<-stopped
		time.Sleep(time.Minute)
		if late := c.Late(); late != 0 {
			t.Errorf("%v after its end", late)
		}
	})
}
