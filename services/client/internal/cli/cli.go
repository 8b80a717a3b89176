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
	exitDone      = 0   // the stream is complete, or what was asked for is done
	exitFailed    = 1   // it ended in an explicit error or was refused, or there was no connection
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
		return p.misuse(fmt.Errorf("no command; %s", choices()), "client")
	}
	name := p.Args[0]
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, p, p.Args[1:])
		}
	}
	switch name {
	case "help", "--help", "-h":
		return p.show(writeOverview)
	default:
		return p.misuse(fmt.Errorf("unknown command %q; %s", name, choices()), "client")
	}
}

// unusable says why a command was not run. err is pflag.ErrHelp, problems, or a misuse of the command line.
func (p Process) unusable(c command, err error) int {
	var wrong problems
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return p.show(c.writeHelp)
	case errors.As(err, &wrong):
		p.complain("%v", wrong)
		return exitUsage
	default:
		return p.misuse(err, "client "+c.name)
	}
}

// misuse says what is wrong with the command line.
func (p Process) misuse(err error, command string) int {
	p.complain("%v (see %s --help)", err, command)
	return exitUsage
}

// exit turns how a command ended into the exit code, and says on stderr what to do about it.
func (p Process) exit(ctx context.Context, err error, advice func() string) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNoReader):
		return exitCancelled // quietly
	case ctx.Err() != nil:
		p.complain("cancelled")
		return exitCancelled
	default:
		p.complain("%s", advice())
		return exitFailed
	}
}

// complain writes one line on stderr for each line of the message.
func (p Process) complain(format string, args ...any) {
	writeLines(p.Stderr, fmt.Sprintf(format, args...))
}
