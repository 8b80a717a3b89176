package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := silent("too long")
		w := newWatch(t.Context())
		w.arm(time.Second, silent("something else"))
		time.Sleep(900 * time.Millisecond)
		w.armHead(time.Second, why) // in place of the first
		time.Sleep(900 * time.Millisecond)
		w.hasHead()
		w.armHead(time.Second, why) // it comes too late
		time.Sleep(time.Minute)
		if w.ctx.Err() != nil {
			t.Fatal("a limit ends what keeps to it")
		}
		w.arm(time.Second, why)
		time.Sleep(time.Second)
		synctest.Wait()
		if err := w.fault(context.Canceled, Broken); !errors.Is(err, why) {
			t.Errorf("the end is %v", err)
		}
		w.end()

		caller, cancel := context.WithCancel(t.Context())
		w = newWatch(caller)
		cancel()
		if err := w.fault(errors.New("cut"), Broken); !errors.Is(err, context.Canceled) {
			t.Errorf("the end of the caller is %v", err)
		}
		w.end()

		w = newWatch(t.Context())
		if err := w.fault(errors.New("cut"), Broken); !isFault(err, Broken) {
			t.Errorf("a cut is %v", err)
		}
		w.end()
		if err := w.fault(errors.New("cut"), Broken); !errors.Is(err, context.Canceled) {
			t.Errorf("the end by Close is %v", err)
		}
	})
}
