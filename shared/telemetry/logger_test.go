package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/connswap/connswap/shared/telemetry"
)

// TestMain sets the time zone before there is a goroutine that reads the time: one that a test left in a write that
// nobody ends may outlive it.
func TestMain(m *testing.M) {
	time.Local = time.FixedZone("", 3600)
	os.Exit(m.Run())
}

// write returns what log writes at level info and above, at 01:00 on 2000-01-01.
func write(t *testing.T, format string, log func(*zap.Logger)) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		logger, err := telemetry.NewLogger("info", format, zapcore.AddSync(&out))
		require.NoError(t, err)
		log(logger)
	})
	return out.String()
}

func TestConsole(t *testing.T) {
	type point struct{ X, Y int }
	tests := []struct {
		name string
		log  func(*zap.Logger)
		want string // after the time
	}{
		{"token", func(l *zap.Logger) {
			l.Info("received token", zap.String("connection.id", "conn-1"), zap.String("worker", "worker-a"), zap.Uint64("stream.id", 1), zap.Int("sequence", 1))
		}, "INFO connection.id=conn-1 worker=worker-a stream.id=1 sequence=1 received token"},
		{"no fields", func(l *zap.Logger) { l.Warn("worker lost") }, "WARN worker lost"},
		{"With first", func(l *zap.Logger) {
			l.With(zap.String("b", "1")).With(zap.Int("a", 2)).Error("m", zap.Bool("c", true))
		}, "ERROR b=1 a=2 c=true m"},
		{"With leaves its parent alone", func(l *zap.Logger) {
			parent := l.With(zap.String("p", "1"))
			parent.With(zap.String("x", "1"))
			parent.With(zap.String("y", "1"))
			parent.Info("m")
		}, "INFO p=1 m"},
		{"named", func(l *zap.Logger) { l.Named("pool").Named("link").Info("m") }, "INFO logger=pool.link m"},
		{"quotes", func(l *zap.Logger) {
			l.Info("m", zap.String("space", "a b"), zap.String("equals", "a=b"), zap.String("quote", `a"b`), zap.String("empty", ""),
				zap.String("line", "a\nb"), zap.String("escape", "\x1b[31m"), zap.String("invalid", "\xff"), zap.String("letters", "äß世"))
		}, `INFO space="a b" equals="a=b" quote="a\"b" empty="" line="a\nb" escape="\x1b[31m" invalid="\xff" letters=äß世 m`},
		{"message keeps its line", func(l *zap.Logger) { l.Info("a\nINFO \"b\"\x1b", zap.Int("n", 1)) }, `INFO n=1 a\nINFO \"b\"\x1b`},
		{"numbers", func(l *zap.Logger) {
			l.Info("m", zap.Int8("a", -8), zap.Uint64("b", 1<<64-1), zap.Float64("c", 0.25), zap.Uint16("d", 16), zap.Int32("e", -32), zap.Uintptr("f", 1))
		}, "INFO a=-8 b=18446744073709551615 c=0.25 d=16 e=-32 f=1 m"},
		{"times", func(l *zap.Logger) {
			l.Info("m", zap.Duration("gap", 1500*time.Microsecond), zap.Time("at", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
		}, "INFO gap=1.5ms at=2026-01-02T03:04:05Z m"},
		{"errors", func(l *zap.Logger) {
			l.Info("m", zap.Error(errors.New("no route")), zap.NamedError("cause", errors.New("eof")), zap.Error(nil))
		}, `INFO error="no route" cause=eof m`},
		{"lists", func(l *zap.Logger) {
			l.Info("m", zap.Strings("workers", []string{"a", "b"}), zap.ByteString("bytes", []byte("x")), zap.Binary("binary", []byte("y")), zap.Strings("none", nil))
		}, `INFO workers=a,b bytes=x binary=y none="" m`},
		{"structures", func(l *zap.Logger) {
			l.Info("m", zap.Stringer("level", zapcore.InfoLevel), zap.Any("point", point{1, 2}), zap.Dict("d", zap.Int("y", 1), zap.Int("x", 2)), zap.Skip())
		}, `INFO level=info point="{1 2}" d.x=2 d.y=1 m`},
		{"namespaces", func(l *zap.Logger) {
			l.With(zap.Int("a", 1), zap.Namespace("swap")).Info("m", zap.Int("b", 2), zap.Namespace("to"), zap.Int("c", 3), zap.Bool("d", true))
		}, "INFO a=1 swap.b=2 swap.to.c=3 swap.to.d=true m"},
		{"debug", func(l *zap.Logger) { l.Debug("m") }, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if want != "" {
				want = "01:00:00.000 " + want + "\n"
			}
			require.Equal(t, want, write(t, "console", test.log))
		})
	}
}

func TestJSON(t *testing.T) {
	out := write(t, "json", func(l *zap.Logger) {
		l.With(zap.String("connection.id", "conn-1")).Warn("worker lost", zap.Error(errors.New("eof")), zap.Duration("gap", 1500*time.Microsecond))
		l.Debug("unseen")
	})
	require.Equal(t, 1, strings.Count(out, "\n"))
	var entry map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &entry))
	require.Equal(t, map[string]any{
		"time": "2000-01-01T01:00:00+01:00", "level": "warn", "msg": "worker lost",
		"connection.id": "conn-1", "error": "eof", "gap": "1.5ms",
	}, entry)
}

func TestUnknown(t *testing.T) {
	_, err := telemetry.NewLogger("loud", "json", nil)
	require.ErrorContains(t, err, "loud")
	_, err = telemetry.NewLogger("info", "xml", nil)
	require.ErrorContains(t, err, "xml")
}

// piecewise fails the test if a line comes in more than one write, or two at once.
type piecewise struct {
	t     *testing.T
	lines int
}

func (p *piecewise) Write(b []byte) (int, error) {
	if !bytes.HasSuffix(b, []byte("\n")) || bytes.Count(b, []byte("\n")) != 1 {
		p.t.Errorf("not a line: %q", b)
	}
	p.lines++
	return len(b), nil
}

func (p *piecewise) Sync() error { return nil }

func TestLinesStayWhole(t *testing.T) {
	for _, format := range []string{"console", "json"} {
		out := &piecewise{t: t}
		logger, err := telemetry.NewLogger("debug", format, out)
		require.NoError(t, err)
		logger = logger.With(zap.String("connection.id", "conn-1"))
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for sequence := range 100 {
					logger.Debug("received token", zap.Int("sequence", sequence))
				}
			})
		}
		writers.Wait()
		require.Equal(t, 800, out.lines)
	}
}

type failing struct{ synced bool }

func (f *failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }
func (f *failing) Sync() error               { f.synced = true; return nil }

func TestWriterFails(t *testing.T) {
	var complaints bytes.Buffer
	logger, err := telemetry.NewLogger("info", "console", &failing{})
	require.NoError(t, err)
	logger = logger.WithOptions(zap.ErrorOutput(zapcore.AddSync(&complaints)))
	logger.Info("m")
	require.Contains(t, complaints.String(), "disk full")
}

func TestSync(t *testing.T) {
	out := &failing{}
	logger, err := telemetry.NewLogger("info", "console", out)
	require.NoError(t, err)
	require.NoError(t, logger.Sync())
	require.True(t, out.synced)
}

func BenchmarkConsole(b *testing.B) {
	logger, err := telemetry.NewLogger("info", "console", zapcore.AddSync(&bytes.Buffer{}))
	require.NoError(b, err)
	logger = logger.With(zap.String("connection.id", "conn-1"), zap.String("worker", "worker-a"), zap.Uint64("stream.id", 1))
	b.ReportAllocs()
	for b.Loop() {
		logger.Info("received token", zap.Uint64("sequence", 1))
	}
}
