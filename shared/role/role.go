// Package role is what the commands of the serving roles have in common: the command line, and what they need
// before they can serve.
package role

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

// Command is the command line of a role.
type Command struct {
	Name    string
	Summary string // half a sentence
	Serves  string // what else there is to know about serving; optional
	Config  any    // of which --help prints the table

	Serve    func(out *telemetry.Output) error
	MgmtAddr func() (string, error) // where a role that serves here has its MGMT port
	Others   []*cobra.Command       // further commands
}

const healthTimeout = 3 * time.Second

// Run does what args say, and returns the exit code: 0 done, 1 failed, 2 not understood. What went wrong is on standard
// error, a line for each problem.
func (c Command) Run(args []string) int {
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away makes a write fail then, and does not end the process
	return command.Run(context.Background(), c.root(), args, os.Stdout, os.Stderr)
}

// root is the program: without a command it serves.
func (c Command) root() *cobra.Command {
	root := command.Root(c.Name, c.Summary)
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return command.Unknown(cmd, args[0])
		}
		return nil
	}
	root.RunE = func(*cobra.Command, []string) error { return exit(c.serve()) }
	root.AddCommand(&cobra.Command{
		Use: "healthz", Short: "exit 0 if the " + c.Name + " on this machine is ready, 1 if not", Args: command.None,
		RunE: func(cmd *cobra.Command, _ []string) error { return exit(report(cmd.ErrOrStderr(), c.healthz())) },
	})
	root.AddCommand(c.Others...)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd.HasParent() {
			help(cmd, args)
			return
		}
		c.writeHelp(cmd.OutOrStdout(), cmd)
	})
	return root
}

// exit is the error of a command that ended with a code, and has said why.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return command.Exit(code)
}

// writeHelp writes what there is to know of the program. What fails the writer remembers.
func (c Command) writeHelp(w io.Writer, root *cobra.Command) {
	fmt.Fprintf(w, "%s %s.\n\n", c.Name, c.Summary)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	serves := "serve"
	if c.Serves != "" {
		serves += "; " + c.Serves
	}
	fmt.Fprintf(table, "  %s\t%s\n", c.Name, serves)
	for _, other := range root.Commands() {
		if other.IsAvailableCommand() {
			fmt.Fprintf(table, "  %s\t%s\n", strings.TrimSuffix(other.UseLine(), " [flags]"), other.Short)
		}
	}
	_ = table.Flush() // see above
	fmt.Fprintf(w, "\nIt is configured by environment variables:\n\n")
	_ = config.Usage(w, c.Config) // see above
}

// serve serves. Nobody has to read standard error for that, neither while it lasts nor at its end.
func (c Command) serve() int {
	out := telemetry.NewOutput(os.Stderr)
	defer out.Close()
	return report(out, c.Serve(out))
}

// healthz asks the process on this machine that has the same configuration.
func (c Command) healthz() error {
	addr, err := c.MgmtAddr()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	return mgmt.Healthz(ctx, addr)
}

// report prints an error and returns the exit code: 2 for what is wrong with the configuration, 1 for all else.
func report(to io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(to, err)
	var problem config.Problem
	if errors.As(err, &problem) {
		return 2
	}
	return 1
}

// Prepare returns the role's certificates, which follow their files, and its logger, which writes to out; so do
// libraries from now on. loadErr is what was wrong with the configuration; all that is wrong is told together.
func Prepare(cfg config.Common, role identity.Role, out *telemetry.Output, loadErr error) (*identity.Dir, *zap.Logger, error) {
	var log *zap.Logger // set before the certificates can be asked for, and so before they can change
	var source *identity.Dir
	source, err := identity.FromDir(cfg.TLSDir, role, identity.OnReload(func(err error) {
		if err != nil {
			log.Warn("changed certificates cannot be used; the old ones stay", zap.Error(err))
			return
		}
		log.Info("certificates reloaded", validUntil(source))
	}))
	if err := errors.Join(loadErr, err); err != nil {
		return nil, nil, err
	}
	if log, err = out.Logger(cfg.LogLevel, cfg.LogFormat); err != nil {
		return nil, nil, err
	}
	telemetry.RedirectLibraries(log)
	if names := config.Foreign(); len(names) > 0 {
		log.Debug("environment variables of Kubernetes or Docker are ignored", zap.Strings("variables", names))
	}
	return source, log, nil
}

// validUntil says when certificates expire.
func validUntil(source identity.Source) zap.Field {
	if e := identity.ExpiryOf(source); e != nil {
		return zap.Time("not_after", e.NotAfter)
	}
	return zap.Skip()
}

// Signals has SIGHUP, which a terminal that is closed sends, and who has changed files, reload these at once and say so. Further
// signals, which end a process that does not know them, do what it has for them, or are only logged. It lasts until stop is
// called.
func Signals(source *identity.Dir, log *zap.Logger, more map[os.Signal]func()) (stop func()) {
	handlers := map[os.Signal]func(){syscall.SIGHUP: func() { reload(source, log) }}
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2} {
		handlers[sig] = func() { log.Info("signal without a meaning here: ignored", zap.Stringer("signal", sig)) }
	}
	if hangup := more[syscall.SIGHUP]; hangup != nil {
		more = maps.Clone(more)
		more[syscall.SIGHUP] = func() { reload(source, log); hangup() }
	}
	maps.Copy(handlers, more)
	return run.Catch(handlers)
}

// reload reads the files of certificates now, and says what became of it.
func reload(source *identity.Dir, log *zap.Logger) {
	switch changed, err := source.Reload(); {
	case err != nil:
		log.Warn("hangup signal: the certificates cannot be used; the old ones stay", zap.Error(err))
	case !changed: // else it was said
		log.Info("hangup signal: the certificates are those in use", validUntil(source))
	}
}
