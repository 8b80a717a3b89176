package chaos_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/internal/chaos"
)

func TestWaitingAtAGateEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := errors.New("over")
		gate := &chaos.Gate{}
		gate.Shut()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(over) })
		if err := gate.Wait(ctx); !errors.Is(err, over) {
			t.Errorf("got %v", err)
		}
	})
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &chaos.Gate{}
		gate.Open() // it is already
		if err := gate.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		gate.Shut()
		gate.Shut()
		start := time.Now()
		passed := make(chan time.Duration, 3)
		for range cap(passed) {
			go func() {
				if gate.Wait(t.Context()) == nil {
					passed <- time.Since(start)
				}
			}()
		}
		time.Sleep(time.Second)
		gate.Open()
		for range cap(passed) {
			if at := <-passed; at != time.Second {
				t.Errorf("passed at %v", at)
			}
		}
		if err := gate.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
