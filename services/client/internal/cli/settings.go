package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	// pflag, because flags may follow the prompt, which package flag does not allow, and because one command
	// does not need the framework that cobra puts around it.
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

const defaultPrompt = "Once upon a time"

// settings are what environment and command line together ask for.
type settings struct {
	cfg config.Client // flags and argument have been entered
	tls identity.Source
}

// flagOf names the flag that wins over a variable.
var flagOf = map[string]string{
	config.Prefix + "_CLIENT_MAX_TOKENS": "max-tokens",
	config.Prefix + "_CLIENT_SEED":       "seed",
	config.Prefix + "_CLIENT_OUTPUT":     "output",
}

// problems are what is wrong with the configuration, all at once.
type problems []config.Problem

func (p problems) Error() string {
	return (&config.Problems{List: p}).Error()
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
	flags := pflag.NewFlagSet("generate", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	flags.IntVar(&cfg.MaxTokens, "max-tokens", cfg.MaxTokens, "")
	flags.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "")
	flags.StringVar(&cfg.Output, "output", cfg.Output, "")
	for _, v := range config.Variables(cfg) {
		if flag := flags.Lookup(flagOf[v.Name]); flag != nil {
			flag.Usage = v.Desc
		}
	}
	return flags
}

// ofVariables are the problems with variables that no flag has overruled.
func ofVariables(err error, flags *pflag.FlagSet) problems {
	return slices.DeleteFunc(listed(err), func(p config.Problem) bool { return given(flags, p) })
}

// ofFlags are the problems with the flags that were given, under their names.
func ofFlags(err error, flags *pflag.FlagSet) problems {
	list := slices.DeleteFunc(listed(err), func(p config.Problem) bool { return !given(flags, p) })
	for i := range list {
		list[i].Variable = "--" + flagOf[list[i].Variable]
	}
	return list
}

func given(flags *pflag.FlagSet, p config.Problem) bool {
	name, ok := flagOf[p.Variable]
	return ok && flags.Changed(name)
}

// listed takes an error of package config or identity apart.
func listed(err error) problems {
	var several *config.Problems
	switch {
	case err == nil:
		return nil
	case errors.As(err, &several):
		return slices.Clone(several.List)
	default:
		return problems{{Variable: config.Prefix, Want: strings.TrimSpace(err.Error())}}
	}
}
