package settings

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/config"
)

// Bounds on what a file says.
const (
	maxModels   = 1000
	maxAliases  = 100 // of one model
	longestName = 256 // of a model, in bytes
)

// limits are those that may change while a director runs: what they bound begins anew with each request. Each goes by the name of
// its variable.
var limits = map[string]func(*config.Director) *int{
	"max_connections":      func(c *config.Director) *int { return &c.MaxConnections },
	"max_sessions":         func(c *config.Director) *int { return &c.MaxSessions },
	"max_prompt_bytes":     func(c *config.Director) *int { return &c.MaxPromptBytes },
	"max_body_bytes":       func(c *config.Director) *int { return &c.MaxBodyBytes },
	"max_tokens":           func(c *config.Director) *int { return &c.MaxTokens },
	"max_session_bytes":    func(c *config.Director) *int { return &c.MaxSessionBytes },
	"max_swaps_per_minute": func(c *config.Director) *int { return &c.MaxSwapsPerMinute },
	"max_worker_deaths":    func(c *config.Director) *int { return &c.MaxWorkerDeaths },
}

// classes of continuity, from the weakest: see wirepb.Request.
var classes = []string{"none", "text", "verified", "exact"}

// said is what a file says.
type said struct {
	Snapshot
	keys    keys.Entries
	hasKeys bool
	limited []string // limits that the file has
}

// reader reads a file.
type reader struct {
	*yamlfile.Reader
	said
}

// parse reads a file. Whether there are keys does not change while a director runs: else a line too few would open it to everybody.
func (s *Settings) parse(path string, content []byte) (*said, error) {
	r := &reader{said: said{Snapshot: Snapshot{Director: s.variables, models: map[string]model{}, own: map[string]string{}}}}
	err := yamlfile.Parse(path, content, "keys, models or limits", func(y *yamlfile.Reader, n *yaml.Node) {
		r.Reader = y
		given := r.Fields(n, yamlfile.Fields{
			"keys": func(n *yaml.Node) {
				s.mayHaveKeys(y, n)
				r.keys = keys.Section(y, n)
			},
			"models": r.readModels,
			"limits": r.readLimits,
		})
		r.hasKeys = given["keys"]
		if s.keys != nil && !r.hasKeys && n.Kind == yaml.MappingNode {
			r.Refuse(n, "keys is missing, and the director has begun with it; give keys: [] for nobody, or restart to serve everybody")
		}
	})
	return &r.said, err
}

// mayHaveKeys refuses keys that have to be elsewhere, or need a restart.
func (s *Settings) mayHaveKeys(r *yamlfile.Reader, n *yaml.Node) {
	switch {
	case s.variables.KeysFile != "":
		r.Refuse(n, "keys are in %s_DIRECTOR_KEYS_FILE (%s) too; give them in one of the two files", config.Prefix, s.variables.KeysFile)
	case s.now.Load() != nil && s.keys == nil:
		r.Refuse(n, "keys are new, and the director has begun without; restart it so that everybody has to show one")
	}
}

func (r *reader) readModels(n *yaml.Node) {
	if len(n.Content) > 2*maxModels {
		r.Refuse(n, "models: %d of them, at most %d are allowed", len(n.Content)/2, maxModels)
		return
	}
	aliases := map[string][]*yaml.Node{}
	r.Names("models", n, func(name, fields *yaml.Node) {
		if r.readName("models", name) {
			aliases[name.Value] = r.readModel(name, fields)
		}
	})
	for _, own := range slices.SortedFunc(maps.Keys(r.models), func(a, b string) int { return r.models[a].line - r.models[b].line }) {
		r.call(own, aliases[own])
	}
}

// readModel reads what is said of a model, and returns its aliases.
func (r *reader) readModel(name, fields *yaml.Node) (aliases []*yaml.Node) {
	m := model{line: name.Line}
	r.Fields(fields, yamlfile.Fields{
		"aliases": func(n *yaml.Node) { r.Each("aliases", n, func(n *yaml.Node) { aliases = append(aliases, n) }) },
		"continuity": func(n *yaml.Node) {
			class := uint32(r.OneOf("continuity", n, classes...))
			m.continuity = &class
		},
		"max_tokens": func(n *yaml.Node) { m.maxTokens = r.Number("max_tokens", n, 1, math.MaxInt32) },
	})
	if len(aliases) > maxAliases {
		r.Refuse(aliases[maxAliases], "aliases: %d of them, at most %d are allowed", len(aliases), maxAliases)
	}
	r.models[name.Value] = m
	return aliases
}

// call gives a model its other names, once all models are known.
func (r *reader) call(own string, aliases []*yaml.Node) {
	m := r.models[own]
	for _, n := range aliases {
		if !r.readName("aliases", n) {
			continue
		}
		alias := n.Value
		other, taken := r.own[alias]
		named, isName := r.models[alias]
		switch {
		case isName:
			r.Refuse(n, "aliases: %q is the name of a model itself, in line %d; give %s another alias", alias, named.line, own)
		case taken && other == own:
			r.Refuse(n, "aliases: %q for the second time", alias)
		case taken:
			r.Refuse(n, "aliases: %q is one of %s too, in line %d; give it to one of the two", alias, other, r.models[other].line)
		default:
			r.own[alias] = own
			m.aliases = append(m.aliases, alias)
		}
	}
	r.models[own] = m
}

// readName reports whether a node is the name of a model, as requests may have it.
func (r *reader) readName(field string, n *yaml.Node) bool {
	name := n.Value
	if n.Kind != yaml.ScalarNode || name == "" || len(name) > longestName || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' }) {
		r.Refuse(n, "%s: %.40q is no name of a model; give 1 to %d bytes without control characters", field, yamlfile.Shown(n), longestName)
		return false
	}
	return true
}

func (r *reader) readLimits(n *yaml.Node) {
	known := yamlfile.Fields{}
	for name, of := range limits {
		known[name] = func(n *yaml.Node) { r.readLimit(name, n, of(&r.Director)) }
	}
	r.FieldsOr(n, known, fixed)
	slices.Sort(r.limited)
}

// readLimit reads a limit, for which holds what holds for its variable.
func (r *reader) readLimit(name string, n *yaml.Node, to *int) {
	number, err := strconv.Atoi(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		standard := config.DefaultDirector()
		r.Refuse(n, "%s is %.20q; give a whole number such as %d", name, yamlfile.Shown(n), *limits[name](&standard))
		return
	}
	before := *to
	*to = number
	var problems *config.Problems
	if errors.As(r.Director.Validate(), &problems) {
		for _, p := range problems.List {
			if p.Variable == variable(name) {
				r.Refuse(n, "%s is %d: %s", name, number, p.Want)
				*to = before
				return
			}
		}
	}
	r.limited = append(r.limited, name)
}

// variable returns the name of a director's variable.
func variable(limit string) string {
	return config.Prefix + "_DIRECTOR_" + strings.ToUpper(limit)
}

// fixed says of a variable that it is no limit which may change; nothing of anything else.
func fixed(name string) string {
	isVariable := func(v config.Variable) bool { return v.Name == variable(name) }
	if !slices.ContainsFunc(config.Variables(&config.Director{}), isVariable) {
		return ""
	}
	return name + " cannot change while the director runs; set " + variable(name) + " and restart"
}
