package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/config"
)

// Bounds on what a file says.
const (
	maxKeys     = 1000 // each is compared with whatever is shown, and has metrics of its own
	maxLimit    = 1_000_000_000
	maxPriority = 255
	longestName = 256 // of a model, in bytes
)

// entry is what a file says of one name.
type entry struct {
	name     string
	hashes   [][sha256.Size]byte
	models   []string // that may be used; nil for all
	requests int      // per minute; 0 for as many as one likes, as with the next two
	tokens   int      // per minute
	streams  int      // at once
	priority uint32
	standby  bool
}

// Entries are what a file says of keys.
type Entries struct{ list []entry }

// Section reads the list of keys of a file, which is what follows the field keys.
func Section(y *yamlfile.Reader, n *yaml.Node) Entries {
	r := &reader{Reader: y, hashes: map[[sha256.Size]byte]string{}}
	r.keys(n)
	return Entries{r.entries}
}

// parse reads a file that has nothing but keys.
func parse(path string, content []byte) (entries Entries, err error) {
	err = yamlfile.Parse(path, content, "keys: and a list, with [] for nobody", func(r *yamlfile.Reader, n *yaml.Node) {
		given := r.Fields(n, yamlfile.Fields{"keys": func(n *yaml.Node) { entries = Section(r, n) }})
		if !given["keys"] && r.Good() {
			r.Refuse(n, "keys is missing; give a list, with [] for nobody")
		}
	})
	return entries, err
}

// reader collects what a file says.
type reader struct {
	*yamlfile.Reader
	entries []entry
	hashes  map[[sha256.Size]byte]string // with the names that have them
}

func (r *reader) keys(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.Refuse(n, "keys: want a list, with [] for nobody")
		return
	}
	if len(n.Content) > maxKeys {
		r.Refuse(n, "keys: %d of them, at most %d are allowed", len(n.Content), maxKeys)
		return
	}
	for _, item := range n.Content {
		r.key(yamlfile.Value(item))
	}
}

func (r *reader) key(n *yaml.Node) {
	e := entry{}
	given := r.Fields(n, yamlfile.Fields{
		"name":   func(n *yaml.Node) { e.name = n.Value },
		"sha256": func(n *yaml.Node) { r.Each("sha256", n, func(n *yaml.Node) { e.hashes = append(e.hashes, r.hash(n)) }) },
		"models": func(n *yaml.Node) {
			r.Each("models", n, func(n *yaml.Node) { e.models = append(e.models, r.model(n)) })
		},
		"requests_per_minute": func(n *yaml.Node) { e.requests = r.Number("requests_per_minute", n, 1, maxLimit) },
		"tokens_per_minute":   func(n *yaml.Node) { e.tokens = r.Number("tokens_per_minute", n, 1, maxLimit) },
		"max_streams":         func(n *yaml.Node) { e.streams = r.Number("max_streams", n, 1, maxLimit) },
		"standby":             func(n *yaml.Node) { e.standby = r.Bool("standby", n) },
		"priority":            func(n *yaml.Node) { e.priority = uint32(r.Number("priority", n, 0, maxPriority)) },
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	if err := config.CheckName(e.name); err != nil {
		r.Refuse(n, "name: %v", err)
	}
	if slices.ContainsFunc(r.entries, func(other entry) bool { return other.name == e.name }) {
		r.Refuse(n, "name: there is a key %q already; one name can have several: sha256: [first, second]", e.name)
	}
	if !given["sha256"] {
		r.Refuse(n, "sha256 is missing; %s", howToHash)
	}
	for _, hash := range e.hashes {
		if other, there := r.hashes[hash]; there {
			r.Refuse(n, "sha256: the key of %s is that of %s too; give each its own", e.name, other)
		}
		r.hashes[hash] = e.name
	}
	r.entries = append(r.entries, e)
}

// howToHash never has a key in it: whoever wrote that where the hash belongs shall not find it in a log.
const howToHash = "give 64 hexadecimal digits, as printf %s \"$KEY\" | sha256sum makes them"

func (r *reader) hash(n *yaml.Node) (hash [sha256.Size]byte) {
	b, err := hex.DecodeString(n.Value)
	switch {
	case err != nil || len(b) != len(hash):
		r.Refuse(n, "sha256: this is none; %s", howToHash)
	case [sha256.Size]byte(b) == sha256.Sum256(nil):
		r.Refuse(n, "sha256: this is the hash of nothing; %s", howToHash)
	default:
		copy(hash[:], b)
	}
	return hash
}

func (r *reader) model(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" || len(n.Value) > longestName {
		r.Refuse(n, "models: want names of models")
	}
	return n.Value
}
