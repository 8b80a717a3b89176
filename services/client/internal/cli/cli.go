// Package cli is the client's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/quicnet"
)

// Exit codes.
const (
	exitDone      = 0   // the stream is complete
	exitFailed    = 1   // it ended in an explicit error, or there was no connection
	exitUsage     = 2   // the command line or the configuration is wrong; nothing was tried
	exitCancelled = 130 // by SIGINT or SIGTERM, or because nobody reads the output any more
)

// Process is what the command line has of its process. The environment is the other part of its input.
type Process struct {
	Args           []string // without the program's name
	Stdout, Stderr io.Writer
	Terminal       bool            // Stdout is one
	Network        quicnet.Network // nil for the operating system's
}

// Run executes the command and returns the exit code. The end of ctx cancels it.
func Run(ctx context.Context, p Process) int {
	if len(p.Args) == 0 {
		return p.misuse(errors.New("no command; the command is generate"), "client")
	}
	switch command := p.Args[0]; command {
	case "generate":
		return p.generate(ctx, p.Args[1:])
	case "help", "--help", "-h":
		return p.help(overview)
	default:
		return p.misuse(fmt.Errorf("unknown command %q; the command is generate", command), "client")
	}
}

func (p Process) generate(ctx context.Context, args []string) int {
	s, err := parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return p.help(generateUsage)
	}
	var wrong problems
	switch {
	case errors.As(err, &wrong):
		p.complain("%v", wrong)
		return exitUsage
	case err != nil:
		return p.misuse(err, "client generate")
	}
	out, err := newOutput(s.cfg, p)
	if err != nil {
		p.complain("%v", err)
		return exitUsage
	}
	g := &generation{settings: s, process: p, out: out}
	return g.run(ctx)
}

// misuse says what is wrong with the command line.
func (p Process) misuse(err error, command string) int {
	p.complain("%v (see %s --help)", err, command)
	return exitUsage
}

// complain writes one line on stderr for each line of the message.
func (p Process) complain(format string, args ...any) {
	writeLines(p.Stderr, fmt.Sprintf(format, args...))
}
