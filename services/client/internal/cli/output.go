package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
)

// output is one of the three ways to tell what happens on a stream. The report has been brought up to date before.
type output interface {
	connected(r *report)
	event(r *report, event connswap.Event)
	// ended is the last call. err is nil after a Done, which has been told as an event.
	ended(r *report, err error)
	// broken is why the output cannot be written any more, or nil.
	broken() error
}

func newOutput(cfg config.Client, p Process) (output, error) {
	stdout := &sink{w: p.Stdout}
	switch cfg.Output {
	case "log":
		return newLogOutput(stdout, cfg.LogLevel, cfg.LogFormat)
	case "json":
		return newJSONOutput(stdout), nil
	default:
		return &textOutput{sink: stdout, notes: p.Stderr, terminal: p.Terminal, plain: p.Plain}, nil
	}
}

// sink remembers that its writer failed, and swallows what comes after that.
type sink struct {
	w   io.Writer
	err error
}

// Write always succeeds.
func (s *sink) Write(b []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	return len(b), nil
}

// Sync has nothing to do: nothing is kept back.
func (s *sink) Sync() error { return nil }

func (s *sink) print(texts ...string) {
	for _, text := range texts {
		io.WriteString(s, text) //nolint:errcheck // remembered
	}
}

func (s *sink) broken() error { return s.err }

// errNoReader ends a command whose output nobody reads any more.
var errNoReader = errors.New("the output was closed")

// written is an error if an output is broken.
func written(out interface{ broken() error }) error {
	err := out.broken()
	if err != nil && command.ReaderLeft(err) {
		return errNoReader
	}
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
