package chaos_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/internal/chaos"
)

func TestWalkersStepOnTheSameInstants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		clock := chaos.NewClock(100 * time.Millisecond)
		time.Sleep(30 * time.Millisecond)
		walker := clock.Walker()
		for _, want := range []time.Duration{30, 100, 200, 300} {
			if err := walker.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != want*time.Millisecond {
				t.Errorf("stepped at %v, want %v ms", got, int(want))
			}
		}
		time.Sleep(250 * time.Millisecond) // what is missed is not made up for
		for _, want := range []time.Duration{600, 700} {
			if err := walker.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != want*time.Millisecond {
				t.Errorf("stepped at %v, want %v ms", got, int(want))
			}
		}
		clock.Slow(true)
		if err := walker.Wait(t.Context()); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("slow: stepped at %v", time.Since(start))
		}
		clock.Slow(false)
		if err := walker.Wait(t.Context()); err != nil || time.Since(start) != 2100*time.Millisecond {
			t.Errorf("well again: stepped at %v", time.Since(start))
		}
	})
}

func TestAChangeMovesTheStepUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		clock := chaos.NewClock(100 * time.Millisecond)
		walker := clock.Walker()
		if err := walker.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { clock.Slow(true) })
		time.AfterFunc(510*time.Millisecond, func() { clock.Slow(false) })
		if err := walker.Wait(t.Context()); err != nil || time.Since(start) != 600*time.Millisecond {
			t.Errorf("stepped at %v, want 600ms: %v", time.Since(start), err)
		}
		clock = chaos.NewClock(0)
		walker = clock.Walker()
		clock.Slow(true)
		if err := walker.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Millisecond, func() { clock.Slow(false) })
		if err := walker.Wait(t.Context()); err != nil || time.Since(start) != 605*time.Millisecond {
			t.Errorf("without an interval: stepped at %v, want 605ms: %v", time.Since(start), err)
		}
	})
}

func TestNoInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		clock := chaos.NewClock(0)
		walker := clock.Walker()
		for range 10 {
			if err := walker.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("took %v", time.Since(start))
		}
		clock.Slow(true)
		if err := walker.Wait(t.Context()); err != nil || time.Since(start) != 20*time.Millisecond {
			t.Errorf("slow: stepped at %v", time.Since(start))
		}
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := errors.New("over")
		walker := chaos.NewClock(time.Hour).Walker()
		if err := walker.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(over) })
		if err := walker.Wait(ctx); !errors.Is(err, over) {
			t.Errorf("got %v", err)
		}
	})
}
