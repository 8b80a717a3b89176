// Package telemetry makes the loggers of all roles.
package telemetry

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The layouts of the time in a console's line.
const (
	timeOfDay = "15:04:05.000"
	fullTime  = "2006-01-02T15:04:05.000Z07:00" // RFC 3339
)

// NewLogger returns a logger that writes one line for each entry to w, from level (debug, info, warn, error) up.
// It may be used from several goroutines.
//
// format console is for people and grep: the time of day, the level, the fields in their order, the message last:
//
//	15:04:05.000 INFO connection.id=conn-1 worker=worker-a received token
//
// format json is for machines: an object with the members time (RFC 3339), level and msg, and the fields.
func NewLogger(level, format string, w zapcore.WriteSyncer) (*zap.Logger, error) {
	core, err := newCore(level, format, timeOfDay, zapcore.Lock(w))
	if err != nil {
		return nil, err
	}
	return zap.New(core), nil
}

// Logger returns a logger as NewLogger does, which writes to the Output. Its lines are read later, perhaps elsewhere:
// on a console too they have date and zone.
func (o *Output) Logger(level, format string) (*zap.Logger, error) {
	core, err := newCore(level, format, fullTime, o)
	if err != nil {
		return nil, err
	}
	notes, err := newCore(level, format, fullTime, reserve{o})
	if err != nil {
		return nil, err
	}
	note := zap.New(notes, zap.ErrorOutput(o))
	o.mu.Lock()
	o.note = func(lost gap) {
		note.Error("log lines were lost: whoever reads them was too slow, or they could not be written",
			zap.Uint64("dropped", lost.dropped), zap.Uint64("failed", lost.failed), zap.Duration("for", time.Since(lost.since)))
	}
	o.mu.Unlock()
	return zap.New(&sampled{Core: core, samples: o.samples}, zap.ErrorOutput(o)), nil
}

// newCore returns the core of a logger. layout is that of the time on a console.
func newCore(level, format, layout string, w zapcore.WriteSyncer) (zapcore.Core, error) {
	lowest, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	switch format {
	case "console":
		return newConsole(lowest, layout, w), nil
	case "json":
		return zapcore.NewCore(zapcore.NewJSONEncoder(jsonConfig()), w, lowest), nil
	default:
		return nil, fmt.Errorf("log format: unrecognized format: %q", format)
	}
}

func jsonConfig() zapcore.EncoderConfig {
	cfg := zap.NewProductionEncoderConfig()
	cfg.TimeKey = "time"
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	return cfg
}
