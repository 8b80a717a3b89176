package worker

import (
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/shared/config"
)

// Engine returns the built-in engine of that name: what a stream's text should be can be had from it without
// a cluster. For an engine that has more to configure than its name there is EngineOf.
func Engine(name string) (engine.Engine, error) { return engines.New(name, engines.Options{}) }

// EngineOf returns the first built-in engine that a worker with this configuration has.
func EngineOf(cfg config.Worker) (engine.Engine, error) {
	all, err := modelsOf(cfg)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the models of engine %q are its server's", cfg.Engine)
	}
	return all[0].Engine, nil
}

// modelsOf returns the models that a worker is configured to have.
func modelsOf(cfg config.Worker) ([]session.Model, error) {
	configured, err := cfg.Models()
	if err != nil {
		return nil, fmt.Errorf("engine %q: %w", cfg.Engine, err)
	}
	all := make([]session.Model, len(configured))
	for i, m := range configured {
		e, err := engines.New(m.Engine, engines.Options{StateBytes: cfg.StateBytes})
		if err != nil {
			return nil, err
		}
		all[i] = session.Model{Engine: e, Capacity: m.Capacity}
	}
	return all, nil
}
