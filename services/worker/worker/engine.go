package worker

import (
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
	"github.com/connswap/connswap/shared/config"
)

// Engine returns the built-in engine of that name: what a stream's text should be can be had from it without
// a cluster. For an engine that has more to configure than its name there is EngineOf.
func Engine(name string) (engine.Engine, error) { return engines.New(name, engines.Options{}) }

// EngineOf returns the built-in engine that a worker with this configuration has.
func EngineOf(cfg config.Worker) (engine.Engine, error) {
	return engines.New(cfg.Engine, engines.Options{StateBytes: cfg.StateBytes})
}
