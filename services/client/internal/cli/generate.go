package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

const defaultPrompt = "Once upon a time"

func generateCommand() command {
	c := command{
		name: "generate", args: "[PROMPT]", summary: "has text generated and prints it as it comes",
		about:  "PROMPT is one argument: quote it. Flags may stand before and after it.",
		config: config.Client{},
		flags:  func() *pflag.FlagSet { return newFlags(&config.Client{}) },
	}
	c.run = func(ctx context.Context, p Process, args []string) int { return p.generate(ctx, c, args) }
	return c
}

func (p Process) generate(ctx context.Context, c command, args []string) int {
	s, err := parse(args)
	if err != nil {
		return p.unusable(c, err)
	}
	out, err := newOutput(s.cfg, p)
	if err != nil {
		p.complain("%v", err)
		return exitUsage
	}
	g := &generation{settings: s, process: p, out: out}
	return g.run(ctx)
}

// settings are what environment and command line together ask for.
type settings struct {
	cfg config.Client // flags and argument have been entered
	tls identity.Source
}

// parse reads the environment and the arguments of generate. The error is pflag.ErrHelp, problems, or a
// misuse of the command line.
func parse(args []string) (settings, error) {
	cfg, loadErr := config.LoadClient()
	flags := newFlags(&cfg)
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	switch flags.NArg() {
	case 0:
		if cfg.Prompt == "" {
			cfg.Prompt = defaultPrompt
		}
	case 1:
		cfg.Prompt = flags.Arg(0)
	default:
		return settings{}, fmt.Errorf("%d arguments, at most one is allowed: quote a prompt of several words", flags.NArg())
	}
	wrong := ofVariables(loadErr, flags)
	wrong = append(wrong, ofFlags(cfg.Validate(), flags)...)
	tls, err := identity.FromDir(cfg.TLSDir, identity.Client)
	wrong = append(wrong, listed(err)...)
	if len(wrong) > 0 {
		return settings{}, wrong
	}
	return settings{cfg: cfg, tls: tls}, nil
}

// newFlags returns the flags of generate. They have the values of cfg as defaults, and write into it.
func newFlags(cfg *config.Client) *pflag.FlagSet {
	flags := newFlagSet("generate")
	flags.IntVar(&cfg.MaxTokens, "max-tokens", cfg.MaxTokens, "")
	flags.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "")
	flags.IntVar(&cfg.Priority, "priority", cfg.Priority, "")
	flags.StringVar(&cfg.Output, "output", cfg.Output, "")
	describeFlags(flags, cfg)
	return flags
}
