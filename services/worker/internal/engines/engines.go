// Package engines has the engines that come with the worker.
package engines

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// Options are what an engine needs beyond its name.
type Options struct {
	StateBytes int // of engine stateful: the size of a state, 1024 to wire.MaxState
}

var byName = map[string]func(Options) (engine.Engine, error){
	"markov":   func(Options) (engine.Engine, error) { return NewMarkov(), nil },
	"counter":  func(Options) (engine.Engine, error) { return Counter{}, nil },
	"stateful": func(o Options) (engine.Engine, error) { return NewStateful(o.StateBytes) },
}

// New returns the engine with the given name. The error names those that there are.
func New(name string, options Options) (engine.Engine, error) {
	build, ok := byName[name]
	if !ok {
		known := slices.Sorted(maps.Keys(byName))
		return nil, fmt.Errorf("unknown engine %q, known are %s", name, strings.Join(known, ", "))
	}
	return build(options)
}

// begin returns the limit of a text of a built-in engine, all of which make one choice. A token of the prompt is a word.
func begin(name string, req engine.Request, made int) (engine.Limit, error) {
	if req.Choices > 1 {
		return engine.Limit{}, wire.Errorf(wire.CodeInvalid, "engine %s makes one choice, and was asked for %d", name, req.Choices)
	}
	return engine.NewLimit(req, made, len(strings.Fields(req.Prompt))), nil
}

// fingerprint names an engine by all that its tokens depend on.
func fingerprint(name string, version int, data string) string {
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("%s/%d/%s", name, version, hex.EncodeToString(sum[:8]))
}
