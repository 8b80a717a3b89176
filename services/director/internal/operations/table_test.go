package operations_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/operations"
	"github.com/connswap/connswap/shared/wire"
)

// work is what an operation of the tests does: it takes what to say, and ends when it is told to or given up.
type work struct {
	progress chan any
	end      chan error
	runs     atomic.Int32
	gone     chan error // why it was given up
}

// cause returns why it was given up; nil if it was not.
func (w *work) cause() error {
	synctest.Wait()
	select {
	case err := <-w.gone:
		return err
	default:
		return nil
	}
}

func newWork() *work {
	return &work{progress: make(chan any), end: make(chan error), gone: make(chan error, 1)}
}

func (w *work) run(ctx context.Context, progress func(any)) (any, error) {
	w.runs.Add(1)
	for {
		select {
		case v := <-w.progress:
			progress(v)
		case err := <-w.end:
			return "done", err
		case <-ctx.Done():
			w.gone <- context.Cause(ctx)
			return "partly", fmt.Errorf("given up: %w", context.Cause(ctx))
		}
	}
}

// inTable runs a test with a table in a bubble.
func inTable(t *testing.T, test func(t *testing.T, table *operations.Table)) {
	synctest.Test(t, func(t *testing.T) {
		table := operations.NewTable(zap.NewNop())
		defer table.Close()
		test(t, table)
	})
}

func request(w *work, key, digest string) operations.Request {
	return operations.Request{Kind: "work", Caller: "caller", Key: key, Digest: digest, Run: w.run}
}

// next returns the next event of an operation after some other.
func next(t *testing.T, o *operations.Operation, after uint64) (operations.Event, bool) {
	t.Helper()
	e, more, err := o.Next(t.Context(), after)
	require.NoError(t, err)
	return e, more
}

func TestEvents(t *testing.T) {
	inTable(t, func(t *testing.T, table *operations.Table) {
		w := newWork()
		o, leave, err := table.Begin(request(w, "", ""))
		require.NoError(t, err)
		defer leave()
		w.progress <- 1
		e, more := next(t, o, 0)
		require.Equal(t, operations.Event{Number: 1, Name: "progress", Data: []byte("1")}, e)
		require.True(t, more)
		w.progress <- 2 // too soon
		time.Sleep(200 * time.Millisecond)
		w.progress <- 1 // no news
		time.Sleep(200 * time.Millisecond)
		w.progress <- 3
		e, _ = next(t, o, 1)
		require.Equal(t, operations.Event{Number: 2, Name: "progress", Data: []byte("3")}, e)
		w.end <- nil
		e, more = next(t, o, 2)
		require.Equal(t, operations.Event{Number: 3, Name: "result", Data: []byte(`"done"`)}, e)
		require.False(t, more)
		for _, after := range []uint64{0, 3, 99} { // whoever comes back gets the last one
			again, more := next(t, o, after)
			require.Equal(t, e, again)
			require.False(t, more)
		}
		last, err := o.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, e, last)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		quiet := newWork()
		o, leave, err = table.Begin(request(quiet, "", ""))
		require.NoError(t, err)
		defer leave()
		_, more, err = o.Next(ctx, 0)
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, more)
		quiet.end <- wire.Errorf(wire.CodeConflict, "not now")
		e, _ = next(t, o, 0)
		require.Equal(t, `{"code":"conflict","message":"not now"}`, string(e.Data))
		_, err = o.Wait(t.Context())
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeConflict})
	})
}

// TestNobodyFollows gives an operation up when nobody has followed it for ten seconds, and not before.
func TestNobodyFollows(t *testing.T) {
	inTable(t, func(t *testing.T, table *operations.Table) {
		w := newWork()
		o, first, err := table.Begin(request(w, "", ""))
		require.NoError(t, err)
		time.Sleep(time.Hour)
		second := o.Follow()
		first()
		first() // counts once
		time.Sleep(time.Hour)
		second()
		time.Sleep(10*time.Second - time.Millisecond)
		third := o.Follow() // in the last moment
		time.Sleep(time.Hour)
		require.NoError(t, w.cause())
		third()
		time.Sleep(10*time.Second - time.Millisecond)
		require.NoError(t, w.cause())
		time.Sleep(2 * time.Millisecond)
		require.EqualError(t, w.cause(), "the operator gave it up")
	})
}

func TestGiveUp(t *testing.T) {
	inTable(t, func(t *testing.T, table *operations.Table) {
		w := newWork()
		o, leave, err := table.Begin(request(w, "", ""))
		require.NoError(t, err)
		defer leave()
		o.GiveUp()
		e, more := next(t, o, 0)
		require.False(t, more)
		require.Equal(t, `{"code":"internal","message":"given up: the operator gave it up"}`, string(e.Data))
	})
}

// TestSameRequestAgain begins what has begun already: it happens once.
func TestSameRequestAgain(t *testing.T) {
	inTable(t, func(t *testing.T, table *operations.Table) {
		w := newWork()
		first, leave, err := table.Begin(request(w, "key", "body"))
		require.NoError(t, err)
		leave()
		time.Sleep(9 * time.Second)
		again, leave, err := table.Begin(request(w, "key", "body"))
		require.NoError(t, err)
		require.Same(t, first, again)
		time.Sleep(time.Minute) // it is followed again
		_, _, err = table.Begin(request(w, "key", "another body"))
		require.ErrorIs(t, err, operations.ErrOtherBody)
		w.end <- nil
		leave()
		synctest.Wait()
		time.Sleep(59 * time.Second)
		again, leave, err = table.Begin(request(w, "key", "body"))
		require.NoError(t, err)
		require.Same(t, first, again, "over, and remembered")
		leave()
		require.EqualValues(t, 1, w.runs.Load())

		other := newWork()
		others := request(other, "key", "body")
		others.Caller = "somebody else"
		theirs, leave, err := table.Begin(others)
		require.NoError(t, err)
		defer leave()
		require.NotSame(t, first, theirs, "a key is its caller's")
		nameless, leave, err := table.Begin(request(newWork(), "", "body"))
		require.NoError(t, err)
		defer leave()
		require.NotEqual(t, nameless.ID, theirs.ID)

		found, err := table.Find(first.ID)
		require.NoError(t, err)
		require.Same(t, first, found)
		time.Sleep(time.Second)
		_, err = table.Find(first.ID)
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeNotFound})
		second := newWork()
		anew, leave, err := table.Begin(request(second, "key", "another body"))
		require.NoError(t, err)
		defer leave()
		require.NotSame(t, first, anew, "forgotten")
	})
}

// TestBounds begins more than may run, and more than is remembered.
func TestBounds(t *testing.T) {
	inTable(t, func(t *testing.T, table *operations.Table) {
		var running []*work
		for range 64 {
			w := newWork()
			_, leave, err := table.Begin(request(w, "", ""))
			require.NoError(t, err)
			defer leave()
			running = append(running, w)
		}
		_, _, err := table.Begin(request(newWork(), "", ""))
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeLimit})
		running[0].end <- nil
		synctest.Wait()
		var ids []string
		for range 2000 {
			w := newWork()
			o, leave, err := table.Begin(request(w, "", ""))
			require.NoError(t, err)
			ids = append(ids, o.ID)
			w.end <- nil
			synctest.Wait()
			leave()
		}
		known := 0
		for i, id := range ids {
			if _, err := table.Find(id); err == nil {
				known++
				require.Greater(t, i, 1000, "the oldest are forgotten first")
			}
		}
		require.GreaterOrEqual(t, known, 900)
		require.LessOrEqual(t, known, 1024-63)
		for _, w := range running[1:] {
			require.NoError(t, w.cause())
			w.end <- errors.New("over")
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := operations.NewTable(zap.NewNop())
		w := newWork()
		o, leave, err := table.Begin(request(w, "", ""))
		require.NoError(t, err)
		defer leave()
		table.Close()
		e, more := next(t, o, 0)
		require.False(t, more)
		require.Equal(t, `{"code":"shutdown","message":"the director shuts down; what has moved has moved"}`, string(e.Data))
		_, _, err = table.Begin(request(newWork(), "", ""))
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeShutdown})
	})
}
