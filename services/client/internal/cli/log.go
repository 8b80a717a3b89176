package cli

import (
	"strconv"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/telemetry"
)

// logOutput writes a log line for every token and whatever else happens.
type logOutput struct {
	*sink
	log     *zap.Logger
	console bool
	chars   characters
}

func newLogOutput(s *sink, level, format string) (*logOutput, error) {
	log, err := telemetry.NewLogger(level, format, s)
	if err != nil {
		return nil, err
	}
	return &logOutput{sink: s, log: log, console: format == "console"}, nil
}

func (o *logOutput) connected(r *report) {
	o.log.Info("connected", zap.String("connection.id", r.connection), zap.String("director", r.director),
		zap.String("odcid", r.now.ODCID), zap.String("exporter", r.now.Exporter))
}

func (o *logOutput) event(r *report, event connswap.Event) {
	switch e := event.(type) {
	case connswap.Assigned:
		o.log.Info("worker assigned", served(r)...)
	case connswap.Waiting:
		o.log.Warn("no worker, waiting", zap.String("connection.id", r.connection), zap.Uint64("stream.id", r.stream),
			zap.String("reason", e.Reason), zap.Duration("timeout", e.Timeout))
	case connswap.Recovering:
		o.log.Info("worker catches up", zap.String("connection.id", r.connection), zap.String("worker", e.Worker), zap.Uint64("stream.id", r.stream),
			zap.Uint64("at", e.At), zap.Uint64("of", e.Of))
	case connswap.Token:
		o.token(r, e)
	case connswap.Swapped:
		o.swapped(r, e)
	case connswap.Resumed:
		o.log.Warn("connection lost and resumed", append(served(r), zap.Uint64("sequence", e.Sequence),
			zap.Float64("gap_ms", milliseconds(e.Gap)), zap.NamedError("cause", e.Cause),
			zap.String("odcid", r.now.ODCID), zap.String("exporter", r.now.Exporter))...)
	case connswap.Done:
		fields := append(served(r),
			zap.Uint64("tokens", e.Tokens), zap.Int("swaps", e.Swaps), zap.String("finish_reason", e.FinishReason),
			zap.Stringer("digest", e.Digest), zap.String("odcid", r.now.ODCID), zap.String("exporter", r.now.Exporter),
			zap.Bool("same_connection", r.sameConnection()))
		if r.resumes > 0 {
			fields = append(fields, zap.Int("resumes", r.resumes))
		}
		o.log.Info("stream complete", append(fields, o.rest()...)...)
	}
}

// token puts the text behind the message where people read it, and into a field for programs: whole characters, the last of
// which this token has completed. Quoted they show every byte; in JSON, where they are not valid in UTF-8, the field bytes
// (base64) has those.
func (o *logOutput) token(r *report, t connswap.Token) {
	const message = "received token"
	fields, text := append(served(r), zap.Uint64("sequence", t.Sequence)), o.chars.add(t.Text)
	if o.console {
		o.log.Info(message+" text="+strconv.Quote(text), fields...)
		return
	}
	o.log.Info(message, append(append(fields, zap.Uint64("epoch", t.Epoch)), o.piece(text)...)...)
}

// piece returns the fields of a part of the text.
func (o *logOutput) piece(text string) []zap.Field {
	fields := []zap.Field{zap.String("text", text)}
	if bytes := outside(text); bytes != nil && !o.console {
		fields = append(fields, zap.Binary("bytes", bytes))
	}
	return fields
}

// rest returns the fields of the end of a text that ended within a character.
func (o *logOutput) rest() []zap.Field {
	text := o.chars.end()
	switch {
	case text == "":
		return nil
	case o.console:
		text = strconv.Quote(text)
	}
	return o.piece(text)
}

func (o *logOutput) swapped(r *report, e connswap.Swapped) {
	connection, stream := zap.String("connection.id", r.connection), zap.Uint64("stream.id", r.stream)
	if e.Kind == "failover" {
		o.log.Warn("worker error received", connection, zap.String("worker", e.From), stream, zap.String("cause", e.Cause))
	}
	o.log.Info("CONNECTION MIGRATION: switching workers", connection, stream, zap.Uint64("epoch", e.Epoch),
		zap.String("kind", e.Kind), zap.Float64("gap_ms", milliseconds(e.Gap)), zap.String("continuity", e.Continuity),
		zap.String("from_worker", e.From), zap.String("to_worker", e.To))
	o.log.Info("worker assigned", served(r)...)
}

func (o *logOutput) ended(r *report, err error) {
	if err == nil {
		return
	}
	e, level := describe(err), zap.ErrorLevel
	if e.Code == connswap.CodeCancelled {
		level = zap.WarnLevel
	}
	fields := append(served(r), zap.Uint64("sequence", r.sequence), zap.String("code", string(e.Code)), zap.Error(err))
	o.log.Log(level, "stream ended", append(fields, o.rest()...)...)
}

// served are the fields that nearly every line has.
func served(r *report) []zap.Field {
	return []zap.Field{
		zap.String("connection.id", r.connection), zap.String("worker", r.worker), zap.Uint64("stream.id", r.stream),
	}
}
