package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/agext/levenshtein"
	"github.com/kelseyhightower/envconfig"
)

// LoadDirector reads the environment. The error is a *Problems with everything that is wrong. The Director is
// usable for looking for further problems even then: what could not be understood has its default.
func LoadDirector() (Director, error) {
	var cfg Director
	problems := read(&cfg)
	cfg.ID = orHostName(cfg.ID, "DIRECTOR_ID", problems)
	for i, name := range cfg.ClientNames {
		cfg.ClientNames[i] = strings.TrimSpace(name)
	}
	cfg.validate(problems)
	return cfg, problems.err()
}

// LoadWorker reads the environment, as LoadDirector does.
func LoadWorker() (Worker, error) {
	var cfg Worker
	problems := read(&cfg)
	cfg.Label = orHostName(cfg.Label, "WORKER_LABEL", problems)
	for i, addr := range cfg.Directors {
		cfg.Directors[i] = strings.TrimSpace(addr)
	}
	cfg.validate(problems)
	return cfg, problems.err()
}

// LoadClient reads the environment, as LoadDirector does.
func LoadClient() (Client, error) {
	var cfg Client
	problems := read(&cfg)
	cfg.validate(problems)
	return cfg, problems.err()
}

// LoadOperator reads the environment, as LoadDirector does. Of several directors it takes the first.
func LoadOperator() (Operator, error) {
	var cfg Operator
	problems := read(&cfg)
	first, _, _ := strings.Cut(cfg.Director, ",")
	cfg.Director = strings.TrimSpace(first)
	cfg.validate(problems)
	return cfg, problems.err()
}

// DefaultDirector has the defaults, whatever the environment says. ID is empty.
func DefaultDirector() Director { return defaultDirector() }

// DefaultWorker has the defaults, whatever the environment says. Label is empty.
func DefaultWorker() Worker {
	cfg := defaultWorker()
	cfg.Directors = slices.Clone(cfg.Directors)
	return cfg
}

// DefaultClient has the defaults, whatever the environment says.
func DefaultClient() Client { return defaultClient() }

var (
	defaultDirector = sync.OnceValue(defaults[Director])
	defaultWorker   = sync.OnceValue(defaults[Worker])
	defaultClient   = sync.OnceValue(defaults[Client])
)

func defaults[T any]() T {
	var cfg T
	_ = process(&cfg, func(Variable) (string, bool) { return "", false }) // a test parses all defaults
	return cfg
}

// read fills cfg, a pointer to a role's struct, from the environment. A variable that is set but empty has its
// default: that is what Compose's ${X:-} leaves behind.
func read(cfg any) *Problems {
	problems := process(cfg, func(v Variable) (string, bool) {
		value := os.Getenv(v.Name)
		return value, value != ""
	})
	problems.List = append(problems.List, misspelt(os.Environ())...)
	return problems
}

// environment is held while process has the environment changed.
var environment sync.Mutex

// process fills cfg with what lookup gives, and with defaults where it gives nothing.
//
// It does so through the environment, the only place envconfig reads from: every variable of cfg is set,
// which also keeps envconfig from falling back to names without the prefix (LOG_LEVEL). It stops at the first
// value it cannot parse; that one is noted, gets its default, and all is read again.
func process(cfg any, lookup func(Variable) (string, bool)) *Problems {
	environment.Lock()
	defer environment.Unlock()
	problems := &Problems{}
	variables := Variables(cfg)
	for _, v := range variables {
		value, ok := lookup(v)
		if hint := v.Type.hint(value); ok && hint != "" {
			problems.List = append(problems.List, Problem{Variable: v.Name, Value: value, Want: hint})
			ok = false
		}
		if !ok {
			value = v.Default
		}
		defer override(v.Name, value)()
	}
	place := func(name string) int {
		return slices.IndexFunc(variables, func(v Variable) bool { return v.Name == name })
	}
	for {
		err := envconfig.Process(Prefix, cfg)
		if err == nil {
			slices.SortStableFunc(problems.List, func(a, b Problem) int { return place(a.Variable) - place(b.Variable) })
			return problems
		}
		var bad *envconfig.ParseError
		at := -1
		if errors.As(err, &bad) {
			at = place(bad.KeyName)
		}
		if at < 0 || bad.Value == variables[at].Default { // a mistake in the structs, which a test finds
			problems.List = append(problems.List, Problem{Variable: Prefix, Want: err.Error()})
			return problems
		}
		v := variables[at]
		problems.List = append(problems.List, Problem{Variable: v.Name, Value: bad.Value, Want: v.Type.want(v.Default)})
		override(v.Name, v.Default)
	}
}

// override sets a variable and returns what puts it back.
func override(name, value string) (restore func()) {
	old, was := os.LookupEnv(name)
	os.Setenv(name, value) //nolint:errcheck // fails for malformed names only
	if !was {
		return func() { os.Unsetenv(name) } //nolint:errcheck // as above
	}
	return func() { os.Setenv(name, old) } //nolint:errcheck // as above
}

// misspelt finds the variables that begin with Prefix and that neither a role knows nor another program has set.
func misspelt(environ []string) []Problem {
	known := allNames()
	var problems []Problem
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(strings.ToUpper(name), Prefix+"_") || slices.Contains(known, name) || isForeign(name, value) {
			continue
		}
		if strings.Contains(strings.ToUpper(name), "KEY") {
			value = "…" // whoever puts a key into a variable shall not find it in a log
		}
		problems = append(problems, Problem{
			Variable: name, Value: value,
			Want: fmt.Sprintf("no such variable; did you mean %s?", nearest(name, known)),
		})
	}
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Variable, b.Variable) })
	return problems
}

// nearest is the known name that takes the least to get to. What was left out counts half: OUTPUT is nearer to
// CLIENT_OUTPUT than to any other name of six letters.
func nearest(name string, known []string) string {
	cost := levenshtein.NewParams().InsCost(1).DelCost(2).SubCost(2)
	name = strings.ToUpper(name)
	return slices.MinFunc(known, func(a, b string) int {
		return levenshtein.Distance(name, a, cost) - levenshtein.Distance(name, b, cost)
	})
}

// allNames is every variable of every role, in the order of the structs.
func allNames() []string {
	var names []string
	for _, cfg := range []any{&Director{}, &Worker{}, &Client{}, &Operator{}} {
		for _, v := range Variables(cfg) {
			if !slices.Contains(names, v.Name) {
				names = append(names, v.Name)
			}
		}
	}
	return names
}

func orHostName(value, name string, problems *Problems) string {
	if value != "" {
		return value
	}
	host, err := os.Hostname()
	if err != nil {
		problems.add(name, "", "the host name, which is the default, cannot be read (%v); give a name", err)
		return "unnamed"
	}
	return host
}
