// Package cli is the client's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/quicnet"
)

// Exit codes.
const (
	exitDone      = command.Done      // the stream is complete, or what was asked for is done
	exitFailed    = command.Failed    // it ended in an explicit error or was refused, or there was no connection
	exitUsage     = command.Usage     // the command line or the configuration is wrong; nothing was tried
	exitCancelled = command.Cancelled // by a signal, or because nobody reads the output any more
)

// Process is what the command line has of its process. The environment is the other part of its input.
type Process struct {
	Args           []string // without the program's name
	Stdout, Stderr io.Writer
	Stdin          io.Reader
	Piped          bool            // Stdin is a pipe or a file: there may be a prompt
	Terminal       bool            // Stdout is one
	Plain          bool            // it is to get the text alone, without escapes: NO_COLOR, TERM=dumb
	Network        quicnet.Network // nil for the operating system's
}

// Run executes the command and returns the exit code. The end of ctx cancels it.
func Run(ctx context.Context, p Process) int {
	return command.Run(ctx, p.root(), p.Args, p.Stdout, p.Stderr)
}

// root is the program, with all of its commands.
func (p Process) root() *cobra.Command {
	root := command.Root("client", "asks a connswap director for text and prints it as it comes; and it has a director move streams\nfrom one worker to another.")
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return command.Unknown(cmd, args[0])
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		return command.Misused(cmd, "no command; %s", command.Choices(cmd))
	}
	root.AddCommand(p.generateCommand(), p.statusCommand(), p.eventsCommand(), p.swapCommand(), p.drainCommand(), p.undrainCommand(),
		p.rebalanceCommand(), p.confirmCommand(), p.vetoCommand())
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	return root
}

// ended is the error of a command that ended with an exit code, and has said why.
func ended(code int) error {
	if code == exitDone {
		return nil
	}
	return command.Exit(code)
}

// wrong is the error of a command that was not run because of what is wrong with its configuration.
func (p Process) wrong(list problems) error {
	p.complain("%v", list)
	return command.Exit(exitUsage)
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
	command.Complain(p.Stderr, "client", fmt.Sprintf(format, args...))
}
