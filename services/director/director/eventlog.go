package director

import (
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/telemetry"
)

// logEvents returns an observer that logs what happens to streams. What more there is to say of them their owners log.
func logEvents(log *zap.Logger) func(event.Event) {
	return func(e event.Event) {
		switch b := e.Body.(type) {
		case event.StreamPlaced:
			log.Info("worker assigned", about(b.Stream, telemetry.Often(b.Address), zap.String("worker", b.Worker), zap.Uint64("epoch", b.Epoch),
				zap.String("address", b.Address))...)
		case event.StreamMoved:
			log.Info("migrating connection to new worker", about(b.Stream, telemetry.Always(), zap.String("from_worker", b.FromWorker),
				zap.String("to_worker", b.Worker), zap.String("kind", b.Swap), zap.Uint64("sequence", b.Sequence),
				zap.Uint64("epoch", b.Epoch))...)
		case event.StreamAway:
			log.Info("client lost, its stream waits for it", about(b.Stream, telemetry.Often(b.Address), zap.Uint64("sequence", b.Sequence), zap.String("reason", b.Reason))...)
		case event.StreamResumed:
			log.Info("client came back", about(b.Stream, telemetry.Often(b.Address), zap.Float64("away_ms", b.AwayMS), zap.Uint64("sequence", b.Sequence))...)
		case event.HandoverEnded:
			if r := b.Record; r.Kind == migration.Planned.String() && r.State != migration.Completed.String() {
				log.Info("planned swap was given up", about(b.Stream, telemetry.Often(b.Address), zap.String("from_worker", r.From), zap.String("to_worker", r.To),
					zap.String("state", r.State), zap.String("reason", r.Reason))...)
			}
		}
	}
}

// about are the fields of a line about a stream. sampling says how many of its kind are written.
func about(s event.Stream, sampling zap.Field, more ...zap.Field) []zap.Field {
	return append([]zap.Field{sampling, zap.String("connection.id", s.ConnectionID), zap.Uint64("stream.id", s.StreamID)}, more...)
}
