// Package telemetry makes the loggers of all roles.
package telemetry

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
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
	lowest, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	w = zapcore.Lock(w)
	switch format {
	case "console":
		return zap.New(newConsole(lowest, w)), nil
	case "json":
		return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(jsonConfig()), w, lowest)), nil
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
