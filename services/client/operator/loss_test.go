package operator_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// stuck begins and never ends, until the operator does not want it any more; then it says why on ended.
func stuck(ended chan<- error) func(*fakedirector.Operation) error {
	return func(o *fakedirector.Operation) error {
		o.Progress(&wirepb.MoveReport{Remaining: 3, Moved: 1})
		<-o.Context().Done()
		ended <- context.Cause(o.Context())
		return errors.New("given up")
	}
}

// A request that its caller gives up ends at the director at once, and the connection goes on.
func TestCancelReachesTheDirector(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				ended := make(chan error, 1)
				first := true
				client := t.dial(func(o *fakedirector.Operation) error {
					if !first {
						return o.Result(&wirepb.Operated{})
					}
					first = false
					return stuck(ended)(o)
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(errors.New("interrupt")) })
				start := time.Now()
				if _, err := call(ctx, client); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupt") {
					t.Errorf("got %v", err)
				}
				var reset *quic.StreamError
				if err := <-ended; !errors.As(err, &reset) || reset.ErrorCode != wire.StreamCancel || !reset.Remote {
					t.Errorf("the director learned of it by %v", err)
				}
				if after := time.Since(start); after > 1010*time.Millisecond {
					t.Errorf("after %v", after)
				}
				if err := client.Undrain(t.Context(), "worker-a"); err != nil {
					t.Errorf("the next request: %v", err)
				}
			})
		})
	}
}

// Whatever becomes of the director in the middle of a drain, the caller hears of it, and how far it had come.
func TestDirectorIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(w *world, o *fakedirector.Operation)
		want wire.Code
	}{
		"machine":    {func(w *world, _ *fakedirector.Operation) { w.director.Crash() }, wire.CodeLost},
		"process":    {func(w *world, _ *fakedirector.Operation) { w.director.Kill() }, wire.CodeLost},
		"network":    {func(w *world, _ *fakedirector.Operation) { w.director.Isolate() }, wire.CodeLost},
		"shut down":  {func(_ *world, o *fakedirector.Operation) { _ = o.Conn.CloseWithError(wire.QUICShutdown, "shutdown") }, wire.CodeShutdown},
		"closed":     {func(_ *world, o *fakedirector.Operation) { _ = o.Conn.CloseWithError(wire.QUICLost, "") }, wire.CodeLost},
		"turned out": {func(_ *world, o *fakedirector.Operation) { _ = o.Conn.CloseWithError(wire.QUICRefused, "No.") }, wire.CodeUnavailable},
		"corrected":  {func(_ *world, o *fakedirector.Operation) { _ = o.Conn.CloseWithError(wire.QUICProtocol, "") }, wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				ended := make(chan error, 1)
				client := t.dial(func(o *fakedirector.Operation) error {
					time.AfterFunc(time.Second, func() { test.lose(t, o) })
					return stuck(ended)(o)
				})
				start := time.Now()
				moves, err := client.Drain(t.Context(), "worker-a", time.Minute, false, nil)
				if !errors.Is(err, &wire.Error{Code: test.want}) || moves.Remaining != 3 || moves.Moved != 1 {
					t.Errorf("got %+v, %v", moves, err)
				}
				if told := strings.Contains(err.Error(), "see the status"); told != (test.want == wire.CodeLost) {
					t.Errorf("said %v", err)
				}
				if after := time.Since(start); after > 12*time.Second {
					t.Errorf("after %v", after)
				}
				if <-ended == nil {
					t.Error("the director has not learned of it")
				}
			})
		})
	}
}

// A director that is there, but does not answer, is not waited for without end where it should answer.
func TestSilentDirector(t *testing.T) {
	for name, want := range map[string]time.Duration{
		"status": 15 * time.Second, "undrain": 15 * time.Second, "confirm": 15 * time.Second, "veto": 15 * time.Second,
		"drain": 75 * time.Second, "swap": time.Hour, "rebalance": time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				client := t.dial(stuck(make(chan error, 1)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				_, err := calls[name](ctx, client)
				code, lost := wire.AsError(err, wire.CodeCancelled).Code, wire.CodeLost
				if want == time.Hour {
					lost = wire.CodeCancelled
				}
				if after := time.Since(start).Round(time.Second); after != want || code != lost {
					t.Errorf("after %v: %v", after, err)
				}
			})
		})
	}
}

func TestCloseEndsWhatIsAsked(t *testing.T) {
	inWorld(t, func(t *world) {
		ended := make(chan error, 1)
		client := t.dial(stuck(ended))
		time.AfterFunc(time.Second, func() { client.Close() }) //nolint:errcheck // not under test
		if _, err := client.Rebalance(t.Context(), func(operator.Moves) {}); !errors.Is(err, &wire.Error{Code: wire.CodeCancelled}) {
			t.Errorf("got %v", err)
		}
		var closed *quic.ApplicationError
		if err := <-ended; !errors.As(err, &closed) || !closed.Remote {
			t.Errorf("the director learned of it by %v", err)
		}
		if _, err := client.Status(t.Context()); !errors.Is(err, &wire.Error{Code: wire.CodeCancelled}) {
			t.Errorf("afterwards: got %v", err)
		}
	})
}
