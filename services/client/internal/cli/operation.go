package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// operation is one run of a command that asks a director's MGMT port for something. It has the values of the
// command's own flags and of its argument.
type operation interface {
	// register adds the flags.
	register(flags *pflag.FlagSet)
	// parse reads the arguments. The error is a misuse of the command line.
	parse(args []string) error
	// check returns what is wrong with the values.
	check() problems
	// run asks. The result is never nil; with an error it has what is known all the same. progress takes what there is to
	// say before that.
	run(ctx context.Context, client *operator.Client, progress func(update)) (result, error)
}

// asking makes cmd a command that runs an operation.
func (p Process) asking(op operation, cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = reads("operator")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := op.parse(args); err != nil {
			return command.Misused(cmd, "%w", err)
		}
		return nil
	}
	op.register(cmd.Flags())
	addOperatorFlags(cmd.Flags(), &config.Operator{})
	choose(cmd, "output", "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, tls, wrong := enteredOperator(cmd.Flags(), op)
		if len(wrong) > 0 {
			return p.wrong(wrong)
		}
		return ended(p.operate(cmd.Context(), cfg, tls, op))
	}
	return cmd
}

// enteredOperator reads the environment, and enters the flags that were given.
func enteredOperator(given *pflag.FlagSet, op operation) (config.Operator, identity.Source, problems) {
	cfg, loadErr := config.LoadOperator()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addOperatorFlags(flags, &cfg)
	enter(given, flags)
	wrong := ofVariables(loadErr, flags)
	wrong = append(wrong, ofFlags(cfg.Validate(), flags)...)
	wrong = append(wrong, op.check()...)
	tls, err := identity.FromDir(cfg.TLSDir, identity.Operator)
	wrong = append(wrong, listed(err)...)
	return cfg, tls, wrong
}

// addOperatorFlags adds the flags that all operations have. They write into cfg.
func addOperatorFlags(flags *pflag.FlagSet, cfg *config.Operator) {
	flags.SortFlags = false
	flags.StringVar(&cfg.Output, "output", cfg.Output, "")
	describeFlags(flags, cfg)
}

// operate does all of it and returns the exit code.
func (p Process) operate(ctx context.Context, cfg config.Operator, tls identity.Source, op operation) int {
	out := newDisplay(cfg, p)
	client, err := operator.Dial(ctx, cfg.Director, operator.Options{TLS: tls, Network: p.Network})
	if err != nil {
		out.ended(&outcome{}, err)
		return p.exit(ctx, err, func() string { return adviseOnDirector(cfg, err) })
	}
	result, err := watch(ctx, client, op, out)
	// The director learns of the end before this process is gone. If that cannot be sent, it does a little later.
	_ = client.Close()
	if !errors.Is(err, errNoReader) {
		out.ended(result, err)
	}
	if broken := written(out); broken != nil {
		err = broken
	}
	return p.exit(ctx, err, func() string { return adviseOnRequest(cfg, err) })
}

// watch runs an operation and shows its progress, for as long as that can be written.
func watch(ctx context.Context, client *operator.Client, op operation, out display) (result, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	return op.run(ctx, client, func(u update) {
		out.progress(u)
		if err := written(out); err != nil {
			stop(err)
		}
	})
}
