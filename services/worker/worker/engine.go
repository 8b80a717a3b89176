package worker

import (
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
)

// Engine returns the built-in engine of that name: what a stream's text should be can be had from it without
// a cluster.
func Engine(name string) (engine.Engine, error) { return engines.New(name) }
