// Package yamlfile reads the files that an operator writes, strictly: a field that nobody knows, a value that means nothing and
// a limit with a typing error are refused, each with file and line and what would be right. It looks at a file again when it
// changes.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"
)

// Reader reads the nodes of one document, and collects what is wrong with them. It is used by one goroutine.
type Reader struct {
	path  string
	wrong []string
}

// Fields says how each field of a mapping is read.
type Fields map[string]func(*yaml.Node)

// Parse has read read the only document of a file's content, in YAML, of which JSON is a part. The error says everything that is
// wrong, each with the path and its line; for an empty file what to give instead.
func Parse(path string, content []byte, give string, read func(*Reader, *yaml.Node)) error {
	documents := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	switch err := documents.Decode(&document); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the file is empty; give %s", path, give)
	case err != nil:
		return syntax(path, err)
	case !errors.Is(documents.Decode(&yaml.Node{}), io.EOF):
		return fmt.Errorf("%s: more than one document; give one", path)
	}
	r := &Reader{path: path}
	read(r, document.Content[0])
	if len(r.wrong) > 0 {
		return errors.New(strings.Join(r.wrong, "; "))
	}
	return nil
}

// atLine is how the parser of YAML says where something is wrong.
var atLine = regexp.MustCompile(`^yaml: line (\d+): `)

// syntax returns what the parser of YAML says, with the path and, where it has one, the line.
func syntax(path string, err error) error {
	text := err.Error()
	if at := atLine.FindStringSubmatch(text); at != nil {
		return fmt.Errorf("%s:%s: %s", path, at[1], strings.TrimPrefix(text, at[0]))
	}
	return fmt.Errorf("%s: %s", path, strings.TrimPrefix(text, "yaml: "))
}

// Refuse says what is wrong at a node, and what would be right.
func (r *Reader) Refuse(at *yaml.Node, format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf("%s:%d: %s", r.path, at.Line, fmt.Sprintf(format, args...)))
}

// Good reports whether nothing was refused so far.
func (r *Reader) Good() bool { return len(r.wrong) == 0 }

// Fields reads a mapping, each field by its own function, and returns which there were.
func (r *Reader) Fields(of *yaml.Node, known Fields) (given map[string]bool) {
	return r.FieldsOr(of, known, func(string) string { return "" })
}

// FieldsOr is Fields where more can be said of fields that are not known: hint returns why one is not, and what to do; or nothing.
func (r *Reader) FieldsOr(of *yaml.Node, known Fields, hint func(name string) string) (given map[string]bool) {
	given = map[string]bool{}
	names := slices.Sorted(maps.Keys(known))
	if of.Kind != yaml.MappingNode {
		r.Refuse(of, "want fields: %s", strings.Join(names, ", "))
		return given
	}
	r.mapping(of, func(name, value *yaml.Node) {
		if read := known[name.Value]; read != nil {
			given[name.Value] = true
			read(value)
		} else if why := hint(name.Value); why != "" {
			r.Refuse(name, "%s", why)
		} else {
			r.Refuse(name, "there is no field %.40q; %sthere are %s", name.Value, meant(name.Value, names), strings.Join(names, ", "))
		}
	})
	return given
}

// Names reads a mapping whose fields are names that the operator has chosen, in the order of the file.
func (r *Reader) Names(field string, of *yaml.Node, read func(name, value *yaml.Node)) {
	if of.Kind != yaml.MappingNode {
		r.Refuse(of, "%s: want names, with fields for each", field)
		return
	}
	r.mapping(of, read)
}

// mapping reads each field of a mapping, none of which may be there twice.
func (r *Reader) mapping(of *yaml.Node, read func(name, value *yaml.Node)) {
	given := map[string]bool{}
	for i := 0; i < len(of.Content); i += 2 {
		name := Value(of.Content[i])
		if given[name.Value] {
			r.Refuse(name, "%.40s for the second time", name.Value)
			continue
		}
		given[name.Value] = true
		read(name, Value(of.Content[i+1]))
	}
}

// Each reads a value, or each of a list of some.
func (r *Reader) Each(field string, n *yaml.Node, read func(*yaml.Node)) {
	switch {
	case n.Kind == yaml.ScalarNode:
		read(n)
	case n.Kind != yaml.SequenceNode || len(n.Content) == 0:
		r.Refuse(n, "%s: want one or more; leave the field out if none is meant", field)
	default:
		for _, one := range n.Content {
			read(Value(one))
		}
	}
}

// Number reads a number from least to most; 0 where there is none.
func (r *Reader) Number(field string, n *yaml.Node, least, most int) int {
	number, err := strconv.Atoi(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || number < least || number > most {
		r.Refuse(n, "%s is %.20q; give a number from %d to %d, or leave the field out for none", field, Shown(n), least, most)
	}
	return number
}

// Bool reads true or false.
func (r *Reader) Bool(field string, n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
		r.Refuse(n, "%s is %.20q; give true or false", field, Shown(n))
	}
	return n.Value == "true"
}

// OneOf reads one of some words, and returns which; 0 where it is none of them.
func (r *Reader) OneOf(field string, n *yaml.Node, words ...string) int {
	at := slices.Index(words, n.Value)
	if at < 0 || n.Kind != yaml.ScalarNode {
		last := len(words) - 1
		r.Refuse(n, "%s is %.20q; %sgive %s or %s", field, Shown(n), meant(n.Value, words), strings.Join(words[:last], ", "), words[last])
	}
	return max(0, at)
}

// Value returns what a node stands for, which may have been said elsewhere.
func Value(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Shown returns what a node says, as far as that is one word.
func Shown(n *yaml.Node) string {
	switch n.Kind { //nolint:exhaustive // all others say nothing themselves
	case yaml.ScalarNode:
		return n.Value
	case yaml.SequenceNode:
		return "a list"
	}
	return "fields"
}

// meant asks whether a name that is nearly the one of several was meant; empty if none is near. As in the configuration by
// variables, what was left out counts half.
func meant(name string, known []string) string {
	cost := levenshtein.NewParams().InsCost(1).DelCost(2).SubCost(2)
	best, least := "", 0
	for _, one := range known {
		if d := levenshtein.Distance(name, one, cost); best == "" || d < least {
			best, least = one, d
		}
	}
	if least > len(name) { // half of it would have to change
		return ""
	}
	return "did you mean " + best + "? "
}
