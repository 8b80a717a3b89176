package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/telemetry"
)

// reader is what reads the lines: it can stop to, and fail.
type reader struct {
	mu      sync.Mutex
	text    bytes.Buffer
	stopped chan struct{} // writes wait for it; nil for none
	accept  func(p []byte) (int, error)
}

func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	stopped, accept := r.stopped, r.accept
	r.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	n, err := len(p), error(nil)
	if accept != nil {
		n, err = accept(p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(p[:n])
	return n, err
}

func (r *reader) set(accept func(p []byte) (int, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept = accept
}

func (r *reader) stop() (goOn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stopped := make(chan struct{})
	r.stopped = stopped
	return func() {
		r.mu.Lock()
		r.stopped = nil
		r.mu.Unlock()
		close(stopped)
	}
}

// lines returns the lines so far. Each has to be JSON.
func (r *reader) lines(t *testing.T) []map[string]any {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []map[string]any
	for line := range strings.Lines(r.text.String()) {
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		all = append(all, entry)
	}
	return all
}

// output runs a test in a bubble with a logger, which writes JSON to an Output that r reads.
func output(t *testing.T, test func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		out := telemetry.NewOutput(r)
		logger, err := out.Logger("info", "json")
		require.NoError(t, err)
		test(t, r, out, logger)
		out.Close()
	})
}

func TestOutputPassesLinesOn(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range 100 {
					logger.Info("line", zap.String("text", strings.Repeat("x", 99)))
				}
			})
		}
		writers.Wait()
		_, err := out.Write([]byte(`{"last": "words"}`))
		require.NoError(t, err)
		out.Close()
		require.Len(t, r.lines(t), 801)
		require.Equal(t, telemetry.Counts{Lines: 801}, out.Counts())
	})
}

// Each line arrives once and whole, whether the Output sleeps, writes or is behind when it comes.
func TestOutputKeepsLinesApart(t *testing.T) {
	r := &reader{}
	out := telemetry.NewOutput(r)
	var want strings.Builder
	for i := range 2000 {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", i%100))
		want.WriteString(line)
		out.Write([]byte(line)) //nolint:errcheck // never fails
		if i%7 == 0 {
			runtime.Gosched()
		}
	}
	out.Close()
	require.Equal(t, want.String(), r.text.String())
}

// A reader that stops delays nobody. Once it goes on it is told what it has missed.
func TestOutputDropsWhatNobodyReads(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		goOn := r.stop()
		start, long := time.Now(), strings.Repeat("x", 10_000)
		for range 1000 { // 10 MB
			logger.Info("line", zap.String("text", long))
		}
		require.Zero(t, time.Since(start))
		dropped := out.Counts().Dropped
		require.InDelta(t, 900, dropped, 10, "a megabyte waits")
		time.Sleep(time.Minute)
		goOn()
		synctest.Wait()
		lines := r.lines(t)
		note := lines[len(lines)-1]
		require.Contains(t, note["msg"], "log lines were lost")
		require.EqualValues(t, dropped, note["dropped"])
		require.Equal(t, "1m0s", note["for"])
		logger.Info("on")
		synctest.Wait()
		lines = r.lines(t)
		require.Equal(t, "on", lines[len(lines)-1]["msg"], "one note, and lines go on")
		require.Equal(t, telemetry.Counts{Lines: uint64(len(lines)), Dropped: dropped}, out.Counts())
	})
}

// Errors are counted, and end nothing. A line that was written in part ends before the next one begins.
func TestOutputOutlivesErrors(t *testing.T) {
	for name, err := range map[string]error{"gone": syscall.EPIPE, "full disk": syscall.ENOSPC, "odd": errors.New("odd")} {
		t.Run(name, func(t *testing.T) {
			output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
				r.set(func([]byte) (int, error) { return 0, err })
				for range 3 {
					logger.Info("lost")
					synctest.Wait()
				}
				require.Equal(t, telemetry.Counts{Failed: 3}, out.Counts())
				r.set(nil)
				logger.Info("on")
				synctest.Wait()
				lines := r.lines(t)
				require.Len(t, lines, 2)
				require.Equal(t, "on", lines[0]["msg"])
				require.EqualValues(t, 3, lines[1]["failed"])
			})
		})
	}
}

func TestOutputEndsTornLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		out := telemetry.NewOutput(r)
		r.set(func(p []byte) (int, error) { return len(p) / 2, syscall.ENOSPC })
		out.Write([]byte("0123456789\n")) //nolint:errcheck // never fails
		synctest.Wait()
		r.set(nil)
		out.Write([]byte("whole\n")) //nolint:errcheck // never fails
		out.Close()
		require.Contains(t, r.text.String(), "\nwhole\n")
	})
}

// A pipe that does not block says EAGAIN when it is full: nothing is lost, nothing is doubled.
func TestOutputWaitsForRoom(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		calls := 0
		r.set(func(p []byte) (int, error) {
			if calls++; calls%3 != 0 {
				return min(len(p), 7), syscall.EAGAIN
			}
			return len(p), nil
		})
		for range 100 {
			logger.Info("line")
		}
		time.Sleep(10 * time.Second)
		require.Len(t, r.lines(t), 100)
		require.Equal(t, telemetry.Counts{Lines: 100}, out.Counts())
	})
}

// The end of a process does not depend on its reader.
func TestOutputCloses(t *testing.T) {
	for name, stop := range map[string]func(*reader) func(){
		"nobody reads": (*reader).stop,
		"it is full": func(r *reader) func() {
			r.set(func([]byte) (int, error) { return 0, syscall.EAGAIN })
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &reader{}
				goOn := stop(r)
				out := telemetry.NewOutput(r)
				out.Write([]byte("never read\n")) //nolint:errcheck // never fails
				start := time.Now()
				out.Close()
				require.LessOrEqual(t, time.Since(start), time.Second)
				goOn()
			})
		})
	}
}

// Real pipes: one that nobody reads, in both modes, and one whose reader is gone.
func TestOutputToPipes(t *testing.T) {
	fill := func(t *testing.T, w *os.File) telemetry.Counts {
		t.Helper()
		out := telemetry.NewOutput(w)
		for range 30 {
			out.Write(append(bytes.Repeat([]byte("x"), 100_000), '\n')) //nolint:errcheck // never fails
		}
		out.Close()
		return out.Counts()
	}
	t.Run("nobody reads", func(t *testing.T) {
		var fds [2]int
		require.NoError(t, syscall.Pipe2(fds[:], 0))
		require.Positive(t, fill(t, os.NewFile(uintptr(fds[1]), "blocking")).Dropped)
		require.NoError(t, syscall.Close(fds[0])) // ends the write
	})
	t.Run("nobody reads and it says so", func(t *testing.T) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.Positive(t, fill(t, w).Dropped)
		require.NoError(t, errors.Join(r.Close(), w.Close()))
	})
	t.Run("nobody will read", func(t *testing.T) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Positive(t, fill(t, w).Failed)
		require.NoError(t, w.Close())
	})
}

func TestSampled(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		for port := range 1000 {
			logger.Warn("refused", telemetry.From(fmt.Sprintf("10.0.0.1:%d", port)), zap.Int("port", port))
			logger.Warn("refused", telemetry.From(fmt.Sprintf("[2001:db8::%x]:1", port)))
		}
		logger.Warn("refused", telemetry.From("10.0.0.2:1"))
		logger.Info("other", telemetry.From("10.0.0.1:1"))
		for range 200 {
			logger.Info("important")
			stream := logger.With(telemetry.Often("10.0.0.1:1"), zap.Int("stream.id", 1))
			stream.Info("stream")
			stream.Info("failover", telemetry.Always())
			stream.Warn("odd", telemetry.From("10.0.0.1:1"))
		}
		count := func() map[string]int {
			synctest.Wait()
			n := map[string]int{}
			for _, line := range r.lines(t) {
				n[line["msg"].(string)]++
			}
			return n
		}
		want := map[string]int{"refused": 11, "other": 1, "important": 200, "stream": 100, "failover": 200, "odd": 5}
		require.Equal(t, want, count())
		require.EqualValues(t, 2*995+100+195, out.Counts().Sampled)

		time.Sleep(10 * time.Second)
		want["refused: 995 more like this"], want["stream: 100 more like this"] = 2, 1
		want["odd: 195 more like this"] = 1
		require.Equal(t, want, count())
		for _, line := range r.lines(t) {
			if line["more"] != nil {
				require.Nil(t, line["stream.id"], "it is not about one of them: %v", line)
				require.NotNil(t, line["host"])
			}
		}

		logger.Warn("refused", telemetry.From("10.0.0.1:1"))
		want["refused"]++
		require.Equal(t, want, count(), "another period")
	})
}

// However many addresses there are: what is remembered of them, and written for them, has a bound.
func TestSampledFromEverywhere(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		for i := range 100_000 {
			logger.Warn("refused", telemetry.From(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)))
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		lines := r.lines(t)
		require.Less(t, len(lines), 1100)
		require.EqualValues(t, 100_000+1, len(lines)+int(out.Counts().Sampled), "the rest is counted")
	})
}

// What is left out at the end is counted in the last lines.
func TestSampledUntilTheEnd(t *testing.T) {
	output(t, func(t *testing.T, r *reader, out *telemetry.Output, logger *zap.Logger) {
		for range 7 {
			logger.Warn("refused", telemetry.From(""))
		}
		out.Close()
		lines := r.lines(t)
		require.Equal(t, "refused: 2 more like this", lines[len(lines)-1]["msg"])
	})
}

func TestLibrariesLog(t *testing.T) {
	flags, writer := log.Flags(), log.Writer()
	defer func() { log.SetFlags(flags); log.SetOutput(writer) }()
	output(t, func(t *testing.T, r *reader, _ *telemetry.Output, logger *zap.Logger) {
		telemetry.RedirectLibraries(logger)
		// As quic-go has it (sys_conn.go).
		log.Printf("%s. See https://github.com/quic-go/quic-go/wiki/UDP-Buffer-Sizes for details.",
			errors.New("failed to sufficiently increase receive buffer size (was: 208 kiB, wanted: 7168 kiB, got: 416 kiB)"))
		for range 100 {
			log.Print("http: panic serving\nwith a stack")
		}
		synctest.Wait()
		lines := r.lines(t)
		require.Len(t, lines, 6)
		require.Equal(t, "warn", lines[0]["level"])
		require.Contains(t, lines[0]["msg"], "net.core.rmem_max")
		require.Contains(t, lines[0]["reason"], "got: 416 kiB")
		require.Equal(t, "http: panic serving\nwith a stack", lines[1]["reason"])
	})
}

func TestServicesConsoleHasDateAndZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		out := telemetry.NewOutput(r)
		logger, err := out.Logger("info", "console")
		require.NoError(t, err)
		logger.Info("m", telemetry.From(""), zap.Int("n", 1))
		out.Close()
		require.Equal(t, "2000-01-01T01:00:00.000+01:00 INFO n=1 m\n", r.text.String())
	})
}
