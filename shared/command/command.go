// Package command is what the command lines of all programs have in common: help, versions, completion, misuse. It is
// built on cobra, which the field's command lines are made with, so that people find what they are used to.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/shared/wire"
)

// Exit codes.
const (
	Done      = 0
	Failed    = 1   // it went wrong, was refused, or there was no connection
	Usage     = 2   // the command line or the configuration is wrong; nothing was tried
	Cancelled = 130 // by a signal, or because nobody reads the output any more
)

// Exit ends a program with a code. Whoever returns it from a command has said why.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Misuse is what is wrong with a command line. The program says so, and where its help is.
type Misuse struct {
	Err  error
	Path string // of the command, such as "client swap"
}

func (m *Misuse) Error() string { return fmt.Sprintf("%v (see %s --help)", m.Err, m.Path) }
func (m *Misuse) Unwrap() error { return m.Err }

// Misused returns a Misuse of a command.
func Misused(cmd *cobra.Command, format string, args ...any) error {
	return &Misuse{Err: fmt.Errorf(format, args...), Path: cmd.CommandPath()}
}

// Commands are shown in the order in which they were added: what is needed most comes first.
var _ = func() bool { cobra.EnableCommandSorting = false; return true }()

// Root returns the command that a program is. It has the flags --help and --version, and with Run the commands version and
// completion.
func Root(name, summary string) *cobra.Command {
	root := &cobra.Command{
		Use: name, Short: summary, Version: wire.Describe(name),
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &Misuse{Err: err, Path: cmd.CommandPath()} })
	root.Flags().Bool("version", false, "what this is: build, protocol, Go")
	return root
}

// version says what a program is, for who is used to asking for it by a command.
func version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "says what this is: build, protocol, Go", Args: None,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Root().Version)
			return err
		},
	}
}

// None is for commands without arguments.
func None(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Misused(cmd, "unexpected argument %q, there is none", args[0])
	}
	return nil
}

// Unknown refuses what is no command of cmd, and says what may have been meant.
func Unknown(cmd *cobra.Command, name string) error {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return Misused(cmd, "unknown command %q; did you mean %s?", name, strings.Join(near, " or "))
	}
	return Misused(cmd, "unknown command %q; %s", name, Choices(cmd))
}

// Choices names all commands.
func Choices(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	last := len(names) - 1
	return "the commands are " + strings.Join(names[:last], ", ") + " and " + names[last]
}

// Run executes a program, and returns its exit code. What went wrong is on stderr, a line for each problem.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	out := &writer{w: stdout}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	root.AddCommand(version())
	root.InitDefaultCompletionCmd(args...)
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "writes what a shell needs to complete command lines: bash, zsh, fish, powershell"
		}
	}
	misused := strict(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = misused()
	}
	var exit Exit
	var misuse *Misuse
	switch {
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &misuse):
		Complain(stderr, root.Name(), misuse.Error())
		return Usage
	case err != nil && out.err == nil:
		Complain(stderr, root.Name(), err.Error())
		return Failed
	}
	if out.err != nil && !ReaderLeft(out.err) {
		Complain(stderr, root.Name(), fmt.Sprintf("writing the output: %v", out.err))
	}
	return out.code()
}

// Complain writes each line of a text as one of the program's. There is nobody to tell if that fails.
func Complain(w io.Writer, name, text string) {
	for line := range strings.Lines(text) {
		io.WriteString(w, name+": "+strings.TrimRight(line, "\n")+"\n") //nolint:errcheck // see above
	}
}

// writer remembers that it failed: cobra does not tell.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.w.Write(p)
	}
	return len(p), nil
}

// code is how a program ends that has only written something.
func (w *writer) code() int {
	switch {
	case w.err == nil:
		return Done
	case ReaderLeft(w.err):
		return Cancelled
	}
	return Failed
}
