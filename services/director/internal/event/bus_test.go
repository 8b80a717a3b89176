package event_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/director/internal/event"
)

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var observed []uint64
		bus := event.NewBus(func(e event.Event) { observed = append(observed, e.ID) })
		bus.Publish(event.WorkerUp{Worker: "a"})
		all, lost := bus.Subscribe(0, nil), bus.Subscribe(0, func(e event.Event) bool { return e.Kind() == "worker.lost" })
		var kinds []event.Kind
		go func() {
			for range 3 {
				e, err := all.Next(t.Context())
				if err != nil {
					t.Error(err)
				}
				kinds = append(kinds, e.Kind())
			}
		}()
		synctest.Wait()
		bus.Publish(event.WorkerLost{Worker: "a", Cause: "tether"})
		synctest.Wait()
		bus.Publish(event.WorkerUp{Worker: "a"})
		synctest.Wait()
		require.Equal(t, []event.Kind{"worker.up", "worker.lost", "worker.up"}, kinds)
		require.Equal(t, []uint64{1, 2, 3}, observed)
		e, err := lost.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.WorkerLost{Worker: "a", Cause: "tether"}, e.Body)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = lost.Next(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		e, err = bus.Subscribe(2, nil).Next(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 3, e.ID)
		e, err = bus.Subscribe(99, nil).Next(ctx) // of a process before this one: all that this one has is news
		require.NoError(t, err)
		require.EqualValues(t, 1, e.ID)
	})
}

// TestSlowSubscriber misses events, is told how many, and holds nobody up.
func TestSlowSubscriber(t *testing.T) {
	bus := event.NewBus()
	slow := bus.Subscribe(0, nil)
	bus.Publish(event.WorkerUp{})
	e, err := slow.Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, e.ID)
	for range event.Kept + 10 {
		bus.Publish(event.WorkerUp{})
	}
	e, err = slow.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Missed{Events: 10}, e.Body)
	require.EqualValues(t, 11, e.ID)
	for id := uint64(12); id <= bus.Last(); id++ {
		e, err = slow.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, id, e.ID)
	}
}

// TestManyPublishers: each event has a number of its own, and subscribers get all in order.
func TestManyPublishers(t *testing.T) {
	bus := event.NewBus()
	var publishing sync.WaitGroup
	for range 8 {
		publishing.Go(func() {
			for range 200 {
				bus.Publish(event.WorkerUp{})
			}
		})
	}
	s := bus.Subscribe(0, nil)
	for id := uint64(1); id <= 1600; id++ {
		e, err := s.Next(t.Context())
		if err != nil || e.ID != id {
			t.Fatalf("got %d, %v, want %d", e.ID, err, id)
		}
	}
	publishing.Wait()
}

func TestJSON(t *testing.T) {
	bus := event.NewBus()
	bus.Publish(event.StreamMoved{Stream: event.Stream{ConnectionID: "conn-1", StreamID: 2, Address: "not told"}, Worker: "b", FromWorker: "a", Swap: "failover", Cause: "x", Sequence: 9, Epoch: 2, GapMS: 1.5})
	e, err := bus.Subscribe(0, nil).Next(t.Context())
	require.NoError(t, err)
	b, err := json.Marshal(e)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(b, &got))
	delete(got, "time")
	require.Equal(t, map[string]any{
		"id": 1., "kind": "stream.moved", "connection_id": "conn-1", "stream_id": 2., "worker": "b", "from_worker": "a", "swap": "failover", "cause": "x", "sequence": 9., "epoch": 2.,
		"gap_ms": 1.5,
	}, got)
}

func TestKinds(t *testing.T) {
	all := slices.Clone(event.Kinds)
	slices.Sort(all)
	require.Len(t, slices.Compact(all), len(event.Kinds))
	(*event.Bus)(nil).Publish(event.WorkerUp{}) // nobody listens
}
