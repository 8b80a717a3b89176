package run_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/run"
)

var errBroken = errors.New("broken")

// tail is an actor that waits for its end, takes a second to stop, and notes in order that it has.
func tail(order *[]string, name string, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second)
		*order = append(*order, name)
		return err
	}
}

func TestReturnStopsAll(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"an error", errBroken, "work: broken"},
		{"nil", nil, ""},
		{"the error of a context of its own", context.Canceled, "work: context canceled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var order []string
				var group run.Group
				group.Add("mgmt", tail(&order, "mgmt", nil))
				group.Add("work", func(context.Context) error {
					time.Sleep(time.Minute)
					return test.err
				})
				group.Add("serve", tail(&order, "serve", nil))
				start := time.Now()
				err := group.Run(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, test.want)
					require.ErrorIs(t, err, test.err)
				}
				require.Equal(t, []string{"serve", "mgmt"}, order)
				require.Equal(t, time.Minute+2*time.Second, time.Since(start), "one after the other")
			})
		})
	}
}

func TestCallerStopsAll(t *testing.T) {
	tests := []struct {
		name   string
		serve  error // what the last actor returns when it is stopped
		want   string
		wantIs error
	}{
		{"in peace", nil, "", nil},
		{"with the context's error", context.Canceled, "", nil},
		{"with its cause", errBroken, "", nil},
		{"with another error", os.ErrClosed, "serve: file already closed", os.ErrClosed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				var order []string
				var group run.Group
				group.Add("mgmt", tail(&order, "mgmt", nil))
				group.Add("serve", tail(&order, "serve", test.serve))
				time.AfterFunc(time.Minute, func() { cancel(errBroken) })
				err := group.Run(ctx)
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, test.want)
					require.ErrorIs(t, err, test.wantIs)
				}
				require.Equal(t, []string{"serve", "mgmt"}, order)
			})
		})
	}
}

func TestActorsSeeWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var group run.Group
		group.Add("mgmt", func(ctx context.Context) error {
			if ctx.Value(key{}) != "kept" {
				return errors.New("no value")
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		group.Add("work", func(context.Context) error { return errBroken })
		err := group.Run(context.WithValue(t.Context(), key{}, "kept"))
		require.EqualError(t, err, "work: broken", "mgmt only repeats it")
	})
}

func TestFirstErrorWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		var group run.Group
		group.Add("mgmt", tail(&order, "mgmt", os.ErrExist))
		group.Add("work", tail(&order, "work", os.ErrClosed))
		group.Add("done", func(context.Context) error { return nil })
		require.EqualError(t, group.Run(t.Context()), "work: file already closed")
	})
}

func TestEmptyGroup(t *testing.T) {
	var group run.Group
	require.NoError(t, group.Run(t.Context()))
}

// TestSignals runs the test binary again, as a process that takes its time to stop.
func TestSignals(t *testing.T) {
	if os.Getenv("RUN_TEST_CHILD") != "" {
		ctx, stop := run.SignalContext()
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println(context.Cause(ctx))
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Run("once", func(t *testing.T) { require.NoError(t, signalChild(t, sig, false)) })
			t.Run("twice", func(t *testing.T) {
				var exit *exec.ExitError
				require.ErrorAs(t, signalChild(t, sig, true), &exit)
				status := exit.Sys().(syscall.WaitStatus)
				require.True(t, status.Signaled(), strconv.Itoa(status.ExitStatus()))
				require.Equal(t, sig, status.Signal())
			})
		})
	}
}

func signalChild(t *testing.T, sig syscall.Signal, twice bool) error {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSignals$")
	child.Env = append(os.Environ(), "RUN_TEST_CHILD=1", "GORACE=atexit_sleep_ms=0")
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line := make([]byte, 256)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(line[:n]))
	require.NoError(t, child.Process.Signal(sig))
	n, err = stdout.Read(line)
	require.NoError(t, err)
	require.Equal(t, sig.String()+" signal received\n", string(line[:n]))
	if twice {
		require.NoError(t, child.Process.Signal(sig))
	} else {
		_, err = stdin.Write([]byte("x"))
		require.NoError(t, err)
	}
	return child.Wait()
}
