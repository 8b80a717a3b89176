package session

import (
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Model is one of the models that a worker has, by the name of its engine.
type Model struct {
	engine.Engine
	Capacity int // streams at once; 0 for as many as the worker has

	batch *batch // of a Stepper; set by the table
}

// Proto returns the model as a director is told of it.
func (m Model) Proto() *wirepb.Model {
	_, stateful := m.Engine.(engine.Stateful)
	promise := engine.Exact
	if p, ok := m.Engine.(engine.Promising); ok {
		promise = p.Promises()
	}
	var apis []string
	if a, ok := m.Engine.(engine.Answering); ok {
		apis = a.Answers()
	}
	return &wirepb.Model{
		Name: m.Name(), Fingerprint: m.Fingerprint(), Capacity: uint32(m.Capacity), Stateful: stateful, Continuity: uint32(promise), Apis: apis,
	}
}
