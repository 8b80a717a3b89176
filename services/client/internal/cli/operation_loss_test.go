package cli_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

func TestNoDirector(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *terminal)
		want    []string
		code    string
	}{
		"nobody there": {
			func(*terminal) {},
			[]string{"cannot reach a director", `CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="director:61001"`, "refused", "start one there"},
			"connection_lost",
		},
		"stranger": {
			func(t *terminal) {
				dir := t.TempDir()
				if _, err := identity.EnsureDevelopment(dir, time.Now()); err != nil {
					t.Fatal(err)
				}
				t.operate(nil)
				t.Setenv("CONNECTION_SWAP_TLS_DIR", dir)
			},
			[]string{"do not trust each other", "CONNECTION_SWAP_TLS_DIR=", "unknown authority"},
			"unauthorized",
		},
		"the USER port": {
			func(t *terminal) {
				t.serve(nil)
				t.Setenv("CONNECTION_SWAP_DIRECTOR_MGMT_ADDR", "director:61000, other:61001")
			},
			[]string{`CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="director:61000"`, "nothing listens there", "set the variable to where it is"},
			"connection_lost",
		},
		"an older director": {
			func(t *terminal) { t.operate(refuse(wire.CodeProtocol, "expected Register")) },
			[]string{"is not understood: protocol_error: expected Register", "use a client of its version"},
			"protocol_error",
		},
		"a defect": {
			func(t *terminal) { t.operate(refuse(wire.CodeInternal, "a map was nil")) },
			[]string{"that is a defect"},
			"internal",
		},
		"lost on the way": {
			func(t *terminal) {
				t.operate(func(o *fakedirector.Operation) error {
					t.director.Crash()
					<-o.Context().Done()
					return nil
				})
			},
			[]string{`lost the director at CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="director:61001"`, "has not answered for 15s", "ask again"},
			"connection_lost",
		},
		"shut down on the way": {
			func(t *terminal) {
				t.operate(refuse(wire.CodeShutdown, "good night"))
			},
			[]string{"shutdown: good night; ask again once the director is back"},
			"shutdown",
		},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				test.prepare(t)
				code, stdout, stderr := t.run("status", "--output", "json")
				if code != 1 || strings.Count(stderr, "\n") != 1 {
					t.Errorf("exit code %d: %s", code, stderr)
				}
				for _, want := range test.want {
					if !strings.Contains(stderr, want) {
						t.Errorf("said %snot %q", stderr, want)
					}
				}
				if !strings.HasPrefix(stdout, `{"event":"error"`) || !strings.Contains(stdout, `"code":"`+test.code+`"`) {
					t.Errorf("wrote %s", stdout)
				}
			})
		})
	}
}

// endless begins a drain, and never ends it by itself; it says on ended why the operator's stream did.
func endless(ended chan<- error, then func()) answer {
	return func(o *fakedirector.Operation) error {
		o.Progress(`{"remaining":2,"moved":1,"in_the_way":["conn-1 stream 1: waits for a place"]}`)
		time.AfterFunc(time.Second, then)
		<-o.Context().Done()
		ended <- context.Cause(o.Context())
		return nil
	}
}

// A drain that loses its director says so, and how far it had come.
func TestDirectorLostWhileDraining(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		t.Run(output, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				ended := make(chan error, 1)
				t.operate(endless(ended, t.director.Crash))
				start := time.Now()
				code, stdout, stderr := t.run("drain", "worker-a", "--output", output)
				golden(t, filepath.Join("operation", "drain-lost-"+output+".golden"), transcript(code, stdout, stderr))
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

// An interrupted command gives up what it asked for before it exits.
func TestInterruptedOperation(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		t.Run(output, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				ctx, cancel := context.WithCancelCause(t.Context())
				ended := make(chan error, 1)
				t.operate(endless(ended, func() { cancel(errors.New("interrupt")) }))
				code, stdout, stderr := t.runIn(ctx, "drain", "worker-a", "--output", output)
				golden(t, filepath.Join("operation", "drain-interrupted-"+output+".golden"), transcript(code, stdout, stderr))
				if err := <-ended; !errors.Is(err, fakedirector.ErrGivenUp) {
					t.Errorf("the director learned of it by %v", err)
				}
			})
		})
	}
}

// When nobody reads the progress any more, or nobody can, the command stops, and the director hears of it.
func TestProgressCannotBeWritten(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		code int
		said string
	}{
		"reader left": {&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}, 130, ""},
		"full disk":   {syscall.ENOSPC, 1, "client: writing the output: no space left on device\n"},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.stdout = failing{test.err}
				ended := make(chan error, 1)
				t.operate(endless(ended, func() {}))
				start := time.Now()
				code, _, stderr := t.run("drain", "worker-a", "--output", "json")
				if code != test.code || stderr != test.said || time.Since(start) > time.Second {
					t.Errorf("exit code %d after %v: %s", code, time.Since(start), stderr)
				}
				if <-ended == nil {
					t.Error("the director has not learned of it")
				}
			})
		})
	}
}

// A result that could not be written is no success.
func TestResultCannotBeWritten(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.stdout = failing{syscall.ENOSPC}
		t.operate(result(cluster))
		if code, _, stderr := t.run("status"); code != 1 || !strings.Contains(stderr, "no space left") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
}
