// Command bench measures the failover gap: what a client sees of it when the worker under its streams fails.
//
// It starts real processes (bin/director, bin/worker) on loopback, is their client itself, lets the worker that
// serves all streams fail, again and again, and reports for each class of fault
//
//	gap     time from the last token before the fault to the first after it, less the token interval
//	outage  time from the fault to the first token after it
//
// as a table, and as JSON lines with -json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory with the binaries director and worker")
	flag.IntVar(&o.faults, "faults", 50, "faults of each class and number of streams")
	streams := flag.String("streams", "1,1000", "numbers of streams")
	classes := flag.String("classes", strings.Join(classNames(), ","), "classes of faults")
	flag.DurationVar(&o.starve, "starve", time.Minute, "how long to starve all processes of CPU, looking for false swaps; 0 to leave that out")
	out := flag.String("json", "", "file to append JSON lines to")
	burner := flag.Bool("burn", false, "only burn one core (used by the bench itself)")
	flag.Parse()
	if *burner {
		burn()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx, strings.Split(*streams, ","), strings.Split(*classes, ","), *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	bin    string
	faults int
	starve time.Duration
}

// result is one line of the table.
type result struct {
	Class    string  `json:"class"`
	Streams  int     `json:"streams"`
	Faults   int     `json:"faults"`
	Samples  int     `json:"samples"` // faults × streams
	Interval float64 `json:"interval_ms"`
	Gap      summary `json:"gap_ms"`
	Outage   summary `json:"outage_ms"`
	False    int     `json:"false_swaps"` // swaps beyond one per stream and fault
	Machine  string  `json:"machine"`
}

type summary struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// summarize sorts values and picks their nearest-rank percentiles; negative ones count as zero.
func summarize(values []time.Duration) summary {
	slices.Sort(values)
	at := func(q float64) float64 {
		if len(values) == 0 {
			return 0
		}
		d := values[min(len(values)-1, int(q*float64(len(values))))]
		return float64(max(0, d).Microseconds()) / 1000
	}
	return summary{P50: at(0.50), P99: at(0.99), Max: at(1)}
}

func (o options) run(ctx context.Context, streams, names []string, out string) error {
	sink := io.Discard
	if out != "" {
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // each line was written, or reported
		sink = f
	}
	fmt.Println(machine())
	fmt.Printf("%-10s %8s %7s %9s | %8s %8s %8s | %8s %8s %8s | %s\n", "class", "streams", "faults", "interval",
		"gap p50", "p99", "max ms", "out. p50", "p99", "max ms", "false swaps")
	report := func(r result) error {
		r.Machine = machine()
		fmt.Printf("%-10s %8d %7d %7.0fms | %8.1f %8.1f %8.1f | %8.1f %8.1f %8.1f | %d\n", r.Class, r.Streams, r.Faults, r.Interval,
			r.Gap.P50, r.Gap.P99, r.Gap.Max, r.Outage.P50, r.Outage.P99, r.Outage.Max, r.False)
		return json.NewEncoder(sink).Encode(r)
	}
	for _, n := range streams {
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 {
			return fmt.Errorf("-streams=%s: want numbers above 0", n)
		}
		for _, name := range names {
			r, err := o.class(ctx, name, count)
			if err != nil {
				return fmt.Errorf("%s with %d streams: %w", name, count, err)
			}
			if err := report(r); err != nil {
				return err
			}
		}
	}
	if o.starve == 0 {
		return nil
	}
	r, err := o.starved(ctx)
	if err != nil {
		return fmt.Errorf("starvation: %w", err)
	}
	return report(r)
}

func machine() string {
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s/%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// burn keeps one core busy until the process is killed.
func burn() {
	for n := uint64(1); ; n = n*6364136223846793005 + 1 {
		if n == 0 {
			fmt.Println() // never; keeps the loop from being removed
		}
	}
}
