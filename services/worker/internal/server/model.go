package server

import (
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Model is one of the models that a worker has, by the name of its engine.
type Model struct {
	engine.Engine
	Capacity int // streams at once; 0 for as many as the worker has
}

// Proto returns the model as a director is told of it.
func (m Model) Proto() *wirepb.Model {
	_, stateful := m.Engine.(engine.Stateful)
	return &wirepb.Model{
		Name: m.Name(), Fingerprint: m.Fingerprint(), Capacity: uint32(m.Capacity), Stateful: stateful, Continuity: uint32(engine.Exact),
	}
}

// model returns the model of a name, or the first one for none.
func (s *Server) model(name string) (*Model, *wire.Error) {
	for i := range s.deps.Models {
		if m := &s.deps.Models[i]; name == "" || m.Name() == name {
			return m, nil
		}
	}
	return nil, wire.Errorf(wire.CodeModel, "this worker has no model %q", name)
}
