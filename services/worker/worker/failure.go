package worker

import (
	"encoding/binary"
	"hash/fnv"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/chaos"
)

func (w *Worker) newInjector() *chaos.Injector {
	cfg := chaos.InjectorConfig{
		Mode: w.cfg.FailureMode, Min: w.cfg.FailureMin, Max: w.cfg.FailureMax,
		Recovery: w.cfg.FailureRecovery, Seed: seedOf(w.cfg.FailureSeed, w.cfg.Label),
	}
	says := chaos.Effect{Begin: w.sessions.Fail, End: w.sessions.Recover}
	dies := chaos.Effect{Begin: func(string) { w.deps.Die() }, End: func() {}}
	return chaos.NewInjector(cfg, w.chaos.Effect(says, dies), w.deps.Log, w.victims)
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

// victims says whom a failure concerns: the connection by name where it is only one.
func (w *Worker) victims() []zap.Field {
	sessions := w.sessions.Sessions()
	if len(sessions) == 1 {
		return []zap.Field{zap.String("connection.id", sessions[0].ConnectionID), zap.Uint64("stream.id", sessions[0].StreamID)}
	}
	return []zap.Field{zap.Int("sessions", len(sessions))}
}
