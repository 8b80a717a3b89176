package operator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/wire"
)

// each says an event each second, and stays.
func each(n int) func(*fakedirector.Operation) error {
	return func(o *fakedirector.Operation) error {
		for id := 1; id <= n; id++ {
			o.Say(fmt.Sprintf("event: worker.up\ndata: {\"id\":%d,\"kind\":\"worker.up\",\"worker\":\"worker-%d\"}\n\n", id, id))
			time.Sleep(time.Second)
		}
		<-o.Context().Done()
		return nil
	}
}

// TestEvents: each comes once and in its order, over connections that break, until the caller has enough.
func TestEvents(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.dial(each(6))
		time.AfterFunc(2500*time.Millisecond, w.mgmt.Break)
		time.AfterFunc(4500*time.Millisecond, w.mgmt.Break)
		ctx, enough := context.WithCancelCause(w.Context())
		last := errors.New("enough")
		var got []string
		err := client.Events(ctx, operator.EventFilter{}, func(e operator.Event) {
			got = append(got, fmt.Sprint(e.ID, e.Kind, e.Worker))
			if len(got) == 6 {
				enough(last)
			}
		})
		want := []string{
			"1worker.upworker-1", "2worker.upworker-2", "3worker.upworker-3", "4worker.upworker-4", "5worker.upworker-5", "6worker.upworker-6",
		}
		if !slices.Equal(got, want) || !errors.Is(err, last) && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestEventsEnd: a director that is gone for good, or does not want to, ends it in an error with a code.
func TestEventsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.dial(each(2))
		time.AfterFunc(3*time.Second, w.director.Isolate)
		start := time.Now()
		err := client.Events(w.Context(), operator.EventFilter{}, func(operator.Event) {})
		if known := wire.AsError(err, ""); known.Code != wire.CodeLost || time.Since(start) > 30*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
	inWorld(t, func(w *world) {
		client := w.dial(func(*fakedirector.Operation) error {
			return wire.Errorf(wire.CodeLimit, "32 others follow events already")
		})
		err := client.Events(w.Context(), operator.EventFilter{}, func(operator.Event) {})
		if known := wire.AsError(err, ""); known.Code != wire.CodeLimit {
			t.Errorf("refused with %v", err)
		}
	})
}
