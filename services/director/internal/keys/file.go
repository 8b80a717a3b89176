package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

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
}

// parse reads a file in YAML, of which JSON is a part. It is read by hand, since whoever has mistyped a limit must not go without
// one, and each mistake is told with its line.
func parse(content []byte) ([]entry, error) {
	documents := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	switch err := documents.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty; give keys: and a list, with [] for nobody")
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	case !errors.Is(documents.Decode(&yaml.Node{}), io.EOF):
		return nil, errors.New("more than one document; give one")
	}
	r := &reader{hashes: map[[sha256.Size]byte]string{}}
	given := r.fields(document.Content[0], map[string]func(*yaml.Node){"keys": r.keys})
	if !given["keys"] && len(r.wrong) == 0 {
		r.refuse(document.Content[0], "keys is missing; give a list, with [] for nobody")
	}
	if len(r.wrong) > 0 {
		return nil, errors.New(strings.Join(r.wrong, "; "))
	}
	return r.entries, nil
}

// reader collects what a file says, and what is wrong with it.
type reader struct {
	entries []entry
	hashes  map[[sha256.Size]byte]string // with the names that have them
	wrong   []string
}

func (r *reader) refuse(at *yaml.Node, format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf("line %d: %s", at.Line, fmt.Sprintf(format, args...)))
}

// fields reads a mapping, each field by its own function, and returns which there were.
func (r *reader) fields(of *yaml.Node, known map[string]func(*yaml.Node)) (given map[string]bool) {
	given = map[string]bool{}
	if of.Kind != yaml.MappingNode {
		r.refuse(of, "want fields: %s", list(known))
		return given
	}
	for i := 0; i < len(of.Content); i += 2 {
		name, value := of.Content[i], of.Content[i+1]
		switch read := known[name.Value]; {
		case read == nil:
			r.refuse(name, "there is no field %.40q; there are %s", name.Value, list(known))
		case given[name.Value]:
			r.refuse(name, "%s for the second time", name.Value)
		default:
			given[name.Value] = true
			read(meant(value))
		}
	}
	return given
}

// meant returns what a node stands for, which may have been said elsewhere.
func meant(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func list(known map[string]func(*yaml.Node)) string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (r *reader) keys(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.refuse(n, "keys: want a list, with [] for nobody")
		return
	}
	if len(n.Content) > maxKeys {
		r.refuse(n, "keys: %d of them, at most %d are allowed", len(n.Content), maxKeys)
		return
	}
	for _, item := range n.Content {
		r.key(meant(item))
	}
}

func (r *reader) key(n *yaml.Node) {
	e := entry{}
	given := r.fields(n, map[string]func(*yaml.Node){
		"name":   func(n *yaml.Node) { e.name = n.Value },
		"sha256": func(n *yaml.Node) { r.each("sha256", n, func(n *yaml.Node) { e.hashes = append(e.hashes, r.hash(n)) }) },
		"models": func(n *yaml.Node) {
			r.each("models", n, func(n *yaml.Node) { e.models = append(e.models, r.model(n)) })
		},
		"requests_per_minute": func(n *yaml.Node) { e.requests = r.number("requests_per_minute", n, 1, maxLimit) },
		"tokens_per_minute":   func(n *yaml.Node) { e.tokens = r.number("tokens_per_minute", n, 1, maxLimit) },
		"max_streams":         func(n *yaml.Node) { e.streams = r.number("max_streams", n, 1, maxLimit) },
		"priority":            func(n *yaml.Node) { e.priority = uint32(r.number("priority", n, 0, maxPriority)) },
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	if err := config.CheckName(e.name); err != nil {
		r.refuse(n, "name: %v", err)
	}
	if slices.ContainsFunc(r.entries, func(other entry) bool { return other.name == e.name }) {
		r.refuse(n, "name: there is a key %q already; one name can have several: sha256: [first, second]", e.name)
	}
	if !given["sha256"] {
		r.refuse(n, "sha256 is missing; %s", howToHash)
	}
	for _, hash := range e.hashes {
		if other, there := r.hashes[hash]; there {
			r.refuse(n, "sha256: the key of %s is that of %s too; give each its own", e.name, other)
		}
		r.hashes[hash] = e.name
	}
	r.entries = append(r.entries, e)
}

// each reads a value, or each of a list of some.
func (r *reader) each(field string, n *yaml.Node, read func(*yaml.Node)) {
	switch {
	case n.Kind == yaml.ScalarNode:
		read(n)
	case n.Kind != yaml.SequenceNode || len(n.Content) == 0:
		r.refuse(n, "%s: want one or more; leave the field out if none is meant", field)
	default:
		for _, one := range n.Content {
			read(meant(one))
		}
	}
}

// howToHash never has a key in it: whoever wrote that where the hash belongs shall not find it in a log.
const howToHash = "give 64 hexadecimal digits, as printf %s \"$KEY\" | sha256sum makes them"

func (r *reader) hash(n *yaml.Node) (hash [sha256.Size]byte) {
	b, err := hex.DecodeString(n.Value)
	switch {
	case err != nil || len(b) != len(hash):
		r.refuse(n, "sha256: this is none; %s", howToHash)
	case [sha256.Size]byte(b) == sha256.Sum256(nil):
		r.refuse(n, "sha256: this is the hash of nothing; %s", howToHash)
	default:
		copy(hash[:], b)
	}
	return hash
}

func (r *reader) model(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" || len(n.Value) > longestName {
		r.refuse(n, "models: want names of models")
	}
	return n.Value
}

func (r *reader) number(field string, n *yaml.Node, least, most int) int {
	number, err := strconv.Atoi(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || number < least || number > most {
		r.refuse(n, "%s is %.20q; give a number from %d to %d, or leave the field out for none", field, n.Value, least, most)
	}
	return number
}
