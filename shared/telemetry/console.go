package telemetry

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// console is a zapcore.Core, not an Encoder: it sees the fields as a list, in their order, and renders those
// of With only once. A logger's fields never change; what With returns is another console.
type console struct {
	zapcore.LevelEnabler
	w         zapcore.WriteSyncer // safe for concurrent use
	layout    string              // of the time
	fields    []byte              // of With: key=value and a space, each
	namespace string              // what zap.Namespace put before the keys to come
}

var buffers = buffer.NewPool()

func newConsole(level zapcore.LevelEnabler, layout string, w zapcore.WriteSyncer) *console {
	return &console{LevelEnabler: level, w: w, layout: layout}
}

// With returns a core that begins every line with fields.
func (c *console) With(fields []zapcore.Field) zapcore.Core {
	line := buffers.Get()
	defer line.Free()
	namespace := appendFields(line, c.namespace, fields)
	return &console{
		LevelEnabler: c.LevelEnabler,
		w:            c.w,
		layout:       c.layout,
		fields:       slices.Concat(c.fields, line.Bytes()),
		namespace:    namespace,
	}
}

// Check adds the core to entries of its levels.
func (c *console) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write writes an entry's line, in one call to the writer.
func (c *console) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	line := buffers.Get()
	defer line.Free()
	line.AppendTime(entry.Time, c.layout)
	line.AppendByte(' ')
	line.AppendString(entry.Level.CapitalString())
	line.AppendByte(' ')
	if entry.LoggerName != "" {
		appendPair(line, "logger", entry.LoggerName)
	}
	line.Write(c.fields) //nolint:errcheck // cannot fail
	appendFields(line, c.namespace, fields)
	line.AppendString(printable(entry.Message))
	line.AppendByte('\n')
	if _, err := c.w.Write(line.Bytes()); err != nil {
		return err
	}
	if entry.Level > zapcore.ErrorLevel {
		return c.w.Sync() // the process is about to end
	}
	return nil
}

// Sync flushes the writer.
func (c *console) Sync() error { return c.w.Sync() }

// appendFields writes the fields, and returns the namespace for those after them.
func appendFields(line *buffer.Buffer, namespace string, fields []zapcore.Field) string {
	for _, field := range fields {
		key := namespace + field.Key
		switch field.Type {
		case zapcore.NamespaceType:
			namespace = key + "."
		case zapcore.SkipType:
		case zapcore.StringType:
			appendPair(line, key, field.String)
		case zapcore.Int64Type, zapcore.Int32Type:
			appendPair(line, key, strconv.FormatInt(field.Integer, 10))
		case zapcore.Uint64Type, zapcore.Uint32Type:
			appendPair(line, key, strconv.FormatUint(uint64(field.Integer), 10))
		case zapcore.ErrorType:
			appendPair(line, key, fmt.Sprint(field.Interface)) // without zap's errorVerbose
		default:
			appendAny(line, namespace, field)
		}
	}
	return namespace
}

// appendAny writes a field by way of a map, which knows every type of field. One field can be several pairs
// (zap.Inline, zap.Dict).
func appendAny(line *buffer.Buffer, namespace string, field zapcore.Field) {
	object := zapcore.NewMapObjectEncoder()
	field.AddTo(object)
	appendMap(line, namespace, object.Fields)
}

func appendMap(line *buffer.Buffer, prefix string, pairs map[string]any) {
	keys := make([]string, 0, len(pairs))
	for key := range pairs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if inner, ok := pairs[key].(map[string]any); ok {
			appendMap(line, prefix+key+".", inner)
			continue
		}
		appendPair(line, prefix+key, text(pairs[key]))
	}
}

// text is how a person would write the value.
func text(value any) string {
	switch value := value.(type) {
	case time.Time:
		return value.Format(time.RFC3339Nano)
	case []byte:
		return string(value)
	case []any:
		parts := make([]string, len(value))
		for i := range value {
			parts[i] = text(value[i])
		}
		return strings.Join(parts, ",")
	default:
		return fmt.Sprint(value)
	}
}

func appendPair(line *buffer.Buffer, key, value string) {
	line.AppendString(key)
	line.AppendByte('=')
	if needsQuotes(value) {
		value = strconv.Quote(value)
	}
	line.AppendString(value)
	line.AppendByte(' ')
}

func needsQuotes(value string) bool {
	return value == "" || strings.ContainsFunc(value, func(r rune) bool {
		return r == '=' || r == '"' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// printable keeps a message on its line.
func printable(message string) string {
	if !strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return message
	}
	quoted := strconv.Quote(message)
	return quoted[1 : len(quoted)-1]
}
