package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Engines are the names of the engines that come with the worker.
var Engines = []string{"markov", "counter", "stateful"}

// Model is one of the models that a worker is configured to have.
type Model struct {
	Engine   string
	Capacity int // streams at once; 0 for as many as the worker has
}

// of says which part of a list is meant, unless it is all.
func of(list, part string) string {
	if list == part {
		return ""
	}
	return strconv.Quote(part) + ": "
}

// Models reads Engine. The error says what to change.
func (w *Worker) Models() ([]Model, error) {
	if w.Engine == Upstream {
		return nil, nil // the server says which
	}
	var all []Model
	for part := range strings.SplitSeq(w.Engine, ",") {
		name, capacity, limited := strings.Cut(strings.TrimSpace(part), "=")
		m := Model{Engine: name}
		if name == Upstream {
			return nil, fmt.Errorf("%s stands alone, without other engines and without a number; the models are the server's (%s)", Upstream, full("WORKER_UPSTREAM_MODELS"))
		}
		if !slices.Contains(Engines, name) {
			return nil, fmt.Errorf("%sunknown; give markov, counter or stateful, or upstream alone", of(w.Engine, name))
		}
		if slices.ContainsFunc(all, func(other Model) bool { return other.Engine == name }) {
			return nil, fmt.Errorf("%s stands there twice", name)
		}
		if limited {
			n, err := strconv.ParseUint(capacity, 10, 31)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%s=%q: give a number of streams from 1 on", name, capacity)
			}
			m.Capacity = int(n)
		}
		all = append(all, m)
	}
	return all, nil
}
