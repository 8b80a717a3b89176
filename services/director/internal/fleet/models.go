package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// models are the models that registered workers have, or had until a moment ago, by name. The fleet's lock guards them.
type models map[string]*model

type model struct {
	workers int       // that are registered and have it
	left    time.Time // since when none does
}

// count adds to the workers that have some models.
func (m models) count(names []string, n int) {
	for _, name := range names {
		if m[name] == nil {
			m[name] = &model{}
		}
		m[name].workers += n
		m[name].left = time.Now()
	}
}

// forget drops models that no worker has had for so long.
func (m models) forget(after time.Duration) {
	maps.DeleteFunc(m, func(_ string, one *model) bool { return one.workers == 0 && time.Since(one.left) > after })
}

// Model returns the model that is meant by a name: for none that of the configuration, or else the one that the most
// workers have, of equals the first by name; empty if no worker is known. A name that nobody has, nor had within the time
// that a stream waits for a worker, is refused.
func (f *Fleet) Model(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models.forget(f.deps.ModelsFor)
	name = cmp.Or(name, f.deps.DefaultModel)
	names := slices.Sorted(maps.Keys(f.models))
	switch {
	case name == "" && len(names) == 0:
		return "", nil
	case name == "":
		return slices.MaxFunc(names, func(a, b string) int {
			return cmp.Or(cmp.Compare(f.models[a].workers, f.models[b].workers), cmp.Compare(b, a))
		}), nil
	case len(names) > 0 && f.models[name] == nil:
		return "", wire.Errorf(wire.CodeModel, "no worker has a model %q; there are: %s", name, strings.Join(names, ", "))
	}
	return name, nil
}
