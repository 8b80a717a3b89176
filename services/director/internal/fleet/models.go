package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/wire"
)

// models are the models that registered workers have, or had until a moment ago, by name. The fleet's lock guards them.
type models map[string]*model

type model struct {
	workers int                           // that are registered and have it
	classes [wire.ContinuityExact + 1]int // of them, by the class of continuity that they promise
	left    time.Time                     // since when none does
}

// count adds to the workers that have some models.
func (m models) count(all []routing.Model, n int) {
	for _, one := range all {
		if m[one.Name] == nil {
			m[one.Name] = &model{}
		}
		m[one.Name].workers += n
		m[one.Name].classes[min(one.Continuity, wire.ContinuityExact)] += n
		m[one.Name].left = time.Now()
	}
}

// Models returns the names of the models that registered workers have, in order.
func (f *Fleet) Models() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.models)) {
		if f.models[name].workers > 0 {
			names = append(names, name)
		}
	}
	return names
}

// Answers reports whether a registered worker's model of a name answers an API that generates no text; also while nobody has it.
func (f *Fleet) Answers(name, api string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := false
	for _, w := range f.workers {
		for _, m := range w.Models {
			if there = there || m.Name == name; m.Name == name && slices.Contains(m.APIs, api) {
				return true
			}
		}
	}
	return !there
}

// Promise returns the weakest class of continuity, from least on, that workers with a model have: wherever such a stream goes, it
// has that. It is least while no worker has the model, and false if they all promise less.
func (f *Fleet) Promise(name string, least uint32) (class uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.models[name]
	if m == nil || m.workers == 0 {
		return least, true
	}
	for class = least; int(class) < len(m.classes); class++ {
		if m.classes[class] > 0 {
			return class, true
		}
	}
	return 0, false
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
