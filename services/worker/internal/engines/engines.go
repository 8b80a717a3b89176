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
)

var byName = map[string]func() engine.Engine{
	"markov":  func() engine.Engine { return NewMarkov() },
	"counter": func() engine.Engine { return Counter{} },
}

// New returns the engine with the given name. The error names those that there are.
func New(name string) (engine.Engine, error) {
	build, ok := byName[name]
	if !ok {
		known := slices.Sorted(maps.Keys(byName))
		return nil, fmt.Errorf("unknown engine %q, known are %s", name, strings.Join(known, " and "))
	}
	return build(), nil
}

// fingerprint names an engine by all that its tokens depend on.
func fingerprint(name string, version int, data string) string {
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("%s/%d/%s", name, version, hex.EncodeToString(sum[:8]))
}
