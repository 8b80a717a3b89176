package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/config"
)

// flagOf names the flag that wins over a variable.
var flagOf = map[string]string{
	config.Prefix + "_CLIENT_MAX_TOKENS": "max-tokens",
	config.Prefix + "_CLIENT_SEED":       "seed",
	config.Prefix + "_CLIENT_PRIORITY":   "priority",
	config.Prefix + "_CLIENT_OUTPUT":     "output",
	config.Prefix + "_OPERATOR_OUTPUT":   "output",
}

// problems are what is wrong with the configuration, all at once.
type problems []config.Problem

func (p problems) Error() string {
	return (&config.Problems{List: p}).Error()
}

// enter gives flags that write elsewhere the values of those that were given.
func enter(given, into *pflag.FlagSet) {
	given.Visit(func(f *pflag.Flag) {
		if flag := into.Lookup(f.Name); flag != nil {
			_ = flag.Value.Set(f.Value.String()) // it was understood before
			flag.Changed = true
		}
	})
}

// describeFlags takes over what the variables of cfg, a struct of package config, say of themselves: the help
// shows their defaults, not the values of this environment.
func describeFlags(flags *pflag.FlagSet, cfg any) {
	for _, v := range config.Variables(cfg) {
		if flag := flags.Lookup(flagOf[v.Name]); flag != nil {
			flag.Usage, flag.DefValue = v.Desc, v.Default
		}
	}
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
