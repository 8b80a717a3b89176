package worker

import (
	"encoding/binary"
	"hash/fnv"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/failure"
)

func (w *Worker) newInjector() *failure.Injector {
	cfg := failure.Config{
		Mode: w.cfg.FailureMode, Min: w.cfg.FailureMin, Max: w.cfg.FailureMax,
		Recovery: w.cfg.FailureRecovery, Seed: seedOf(w.cfg.FailureSeed, w.cfg.Label),
	}
	return failure.New(cfg, w.effect(), w.deps.Log, w.victims)
}

// seedOf gives each worker failures of its own from one seed for all: with the same ones they would all be down together. 0 stays 0, which stands for
// another seed at each start.
func seedOf(seed uint64, label string) uint64 {
	if seed == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64([]byte(label), seed)) // a hash never fails to take bytes
	return max(1, h.Sum64())
}

// effect is what the configured failure does to this worker.
func (w *Worker) effect() failure.Effect {
	switch w.cfg.FailureMode {
	case "error":
		return failure.Effect{Begin: w.server.Fail, End: w.server.Recover}
	case "exit":
		return failure.Effect{Begin: func(string) { w.deps.Die() }, End: func() {}}
	case "hang":
		return failure.Effect{Begin: func(string) { w.gate.Shut() }, End: w.gate.Open}
	case "drop":
		return failure.Effect{Begin: func(string) { w.impaired.DropAll(true) }, End: func() { w.impaired.DropAll(false) }}
	case "slow":
		return failure.Effect{Begin: func(string) { w.clock.Slow(true) }, End: func() { w.clock.Slow(false) }}
	}
	return failure.Effect{Begin: func(string) {}, End: func() {}}
}

// victims says whom a failure concerns: the connection by name where it is only one.
func (w *Worker) victims() []zap.Field {
	sessions := w.server.Sessions()
	if len(sessions) == 1 {
		return []zap.Field{zap.String("connection.id", sessions[0].ConnectionID), zap.Uint64("stream.id", sessions[0].StreamID)}
	}
	return []zap.Field{zap.Int("sessions", len(sessions))}
}
