package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

const defaultPrompt = "Once upon a time"

func (p Process) generateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "generate [PROMPT]", Short: "has text generated and prints it as it comes",
		Long: `PROMPT is one argument: quote it. Flags may stand before and after it. With - it is read from standard input, as it is
where there is none and something comes through a pipe.`,
		Annotations: reads("client"),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return command.Misused(cmd, "%d arguments, at most one is allowed: quote a prompt of several words", len(args))
			}
			return nil
		},
	}
	addFlags(cmd.Flags(), &config.Client{})
	choose(cmd, "output", "text", "log", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return p.generate(cmd.Context(), cmd.Flags(), args) }
	return cmd
}

func (p Process) generate(ctx context.Context, flags *pflag.FlagSet, args []string) error {
	s, wrong := enteredSettings(flags)
	if len(wrong) > 0 {
		return p.wrong(wrong)
	}
	var err error
	if s.cfg.Prompt, err = p.prompt(ctx, s.cfg.Prompt, args); err != nil {
		return ended(p.exit(ctx, err, err.Error))
	}
	out, err := newOutput(s.cfg, p)
	if err != nil {
		p.complain("%v", err)
		return command.Exit(exitUsage)
	}
	g := &generation{settings: s, process: p, out: out}
	return ended(g.run(ctx))
}

// settings are what environment and command line together ask for.
type settings struct {
	cfg config.Client // flags and argument have been entered
	tls identity.Source
	key string // empty for none
}

// enteredSettings reads the environment, and enters the flags that were given.
func enteredSettings(given *pflag.FlagSet) (settings, problems) {
	cfg, loadErr := config.LoadClient()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addFlags(flags, &cfg)
	enter(given, flags)
	wrong := ofVariables(loadErr, flags)
	wrong = append(wrong, ofFlags(cfg.Validate(), flags)...)
	tls, err := identity.FromDir(cfg.TLSDir, identity.Client)
	wrong = append(wrong, listed(err)...)
	key, err := config.ReadKey(cfg.KeyFile)
	if err != nil {
		wrong = append(wrong, config.Problem{Variable: keyVariable, Value: cfg.KeyFile, Want: err.Error()})
	}
	return settings{cfg: cfg, tls: tls, key: key}, wrong
}

// addFlags adds the flags of generate. They have the values of cfg as defaults, and write into it.
func addFlags(flags *pflag.FlagSet, cfg *config.Client) {
	flags.SortFlags = false
	flags.Var((*config.Int)(&cfg.MaxTokens), "max-tokens", "")
	flags.StringVar(&cfg.Model, "model", cfg.Model, "")
	flags.Var((*config.Uint)(&cfg.Seed), "seed", "")
	flags.Var((*config.Int)(&cfg.Priority), "priority", "")
	flags.StringVar(&cfg.Output, "output", cfg.Output, "")
	describeFlags(flags, cfg)
}

// choose has shells complete the values of a flag.
func choose(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // there is such a flag
}
