package cli

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
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
	// run asks. The result is never nil; with an error it has what is known all the same. progress takes how far
	// the operation has come.
	run(ctx context.Context, client *operator.Client, progress func(*moves)) (result, error)
}

// asking makes c a command that runs the operation which begin returns.
func (c command) asking(begin func() operation) command {
	c.config = config.Operator{}
	c.flags = func() *pflag.FlagSet { return newOperationFlags(c.name, &config.Operator{}, begin()) }
	c.run = func(ctx context.Context, p Process, args []string) int {
		op := begin()
		cfg, tls, err := parseOperation(c.name, op, args)
		if err != nil {
			return p.unusable(c, err)
		}
		return p.operate(ctx, cfg, tls, op)
	}
	return c
}

// parseOperation reads the environment and the arguments of an operation. The error is pflag.ErrHelp, problems,
// or a misuse of the command line.
func parseOperation(name string, op operation, args []string) (config.Operator, identity.Source, error) {
	cfg, loadErr := config.LoadOperator()
	flags := newOperationFlags(name, &cfg, op)
	if err := flags.Parse(args); err != nil {
		return cfg, nil, err
	}
	if err := op.parse(flags.Args()); err != nil {
		return cfg, nil, err
	}
	wrong := ofVariables(loadErr, flags)
	wrong = append(wrong, ofFlags(cfg.Validate(), flags)...)
	wrong = append(wrong, op.check()...)
	tls, err := identity.FromDir(cfg.TLSDir, identity.Operator)
	wrong = append(wrong, listed(err)...)
	if len(wrong) > 0 {
		return cfg, nil, wrong
	}
	return cfg, tls, nil
}

// newOperationFlags returns the flags of an operation. They write into it and into cfg.
func newOperationFlags(name string, cfg *config.Operator, op operation) *pflag.FlagSet {
	flags := newFlagSet(name)
	op.register(flags)
	flags.StringVar(&cfg.Output, "output", cfg.Output, "")
	describeFlags(flags, cfg)
	return flags
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
	return op.run(ctx, client, func(m *moves) {
		out.progress(m)
		if err := written(out); err != nil {
			stop(err)
		}
	})
}
