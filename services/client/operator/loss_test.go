package operator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/wire"
)

// stuck begins and never ends, until the operator does not want it any more; then it says why on ended.
func stuck(ended chan<- error) func(*fakedirector.Operation) error {
	return func(o *fakedirector.Operation) error {
		o.Progress(`{"remaining":3,"moved":1}`)
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
						return o.Result(`{"message":"done"}`)
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
				if err := <-ended; !errors.Is(err, fakedirector.ErrGivenUp) && (name != "status" || !errors.Is(err, fakedirector.ErrLeft)) {
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

// A connection that breaks, or falls silent for a while, costs nothing: the request is followed on another one.
func TestConnectionBreaks(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"broken off":  func(w *world) { w.mgmt.Break() },
		"several":     func(w *world) { w.mgmt.Break(); time.AfterFunc(100*time.Millisecond, w.mgmt.Break) },
		"silent":      func(w *world) { w.director.Isolate(); time.AfterFunc(8*time.Second, w.director.Rejoin) },
		"for a while": func(w *world) { w.director.Isolate(); time.AfterFunc(3*time.Second, w.director.Rejoin) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				runs := 0
				client := t.dial(func(o *fakedirector.Operation) error {
					runs++
					o.Progress(`{"remaining":3,"moved":1}`)
					time.Sleep(time.Second)
					lose(t)
					time.Sleep(10 * time.Second)
					o.Progress(`{"remaining":1,"moved":3}`)
					return o.Result(`{"remaining":0,"moved":4}`)
				})
				var seen []operator.Moves
				moves, err := client.Drain(t.Context(), "worker-a", time.Minute, false, func(m operator.Moves) { seen = append(seen, m) })
				if err != nil || runs != 1 || moves.Moved != 4 {
					t.Errorf("ran %d times: %+v, %v", runs, moves, err)
				}
				if want := []operator.Moves{{Remaining: 3, Moved: 1}, {Remaining: 1, Moved: 3}}; !slices.EqualFunc(seen, want, func(a, b operator.Moves) bool {
					return a.Moved == b.Moved && a.Remaining == b.Remaining
				}) {
					t.Errorf("saw %+v", seen)
				}
			})
		})
	}
}

// A request whose connection breaks before the director has said anything is sent again, and done once.
func TestRequestIsSentAgain(t *testing.T) {
	inWorld(t, func(t *world) {
		runs := 0
		client := t.dial(func(o *fakedirector.Operation) error {
			runs++
			return o.Result(`{"message":"done"}`)
		})
		t.net.Cut(t.director, t.desk) // the request arrives, the answer does not
		time.AfterFunc(6*time.Second, func() { t.net.Heal(t.director, t.desk) })
		if err := client.Undrain(t.Context(), "worker-a"); err != nil || runs != 1 {
			t.Errorf("ran %d times: %v", runs, err)
		}
	})
}

// Whatever becomes of the director in the middle of a drain, the caller hears of it, and how far it had come.
func TestDirectorIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(w *world)
		want wire.Code
	}{
		"machine":   {func(w *world) { w.director.Crash() }, wire.CodeLost},
		"process":   {func(w *world) { w.director.Kill() }, wire.CodeLost},
		"network":   {func(w *world) { w.director.Isolate() }, wire.CodeLost},
		"new start": {func(w *world) { w.mgmt.Forget(); w.mgmt.Break() }, wire.CodeLost},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				ended := make(chan error, 1)
				client := t.dial(func(o *fakedirector.Operation) error {
					time.AfterFunc(time.Second, func() { test.lose(t) })
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
		if err := <-ended; !errors.Is(err, fakedirector.ErrGivenUp) {
			t.Errorf("the director learned of it by %v", err)
		}
		if _, err := client.Status(t.Context()); !errors.Is(err, &wire.Error{Code: wire.CodeCancelled}) {
			t.Errorf("afterwards: got %v", err)
		}
	})
}
