package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// summary is of many times, in milliseconds.
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

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// report prints lines of tables, and writes each as JSON too.
type report struct {
	json  io.WriteCloser // nil for none
	title string         // of the table that is being printed
}

// newReport appends to the file out, unless that is empty.
func newReport(out string) (*report, error) {
	if out == "" {
		return &report{}, nil
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	return &report{json: f}, err
}

// row is a line of a table; what is written as JSON is the value itself.
type row interface{ title() string }

func (r *report) add(line row) error {
	r.print(line.title(), line)
	if r.json == nil {
		return nil
	}
	return json.NewEncoder(r.json).Encode(line)
}

// print prints a line of the table with that title.
func (r *report) print(title string, line any) {
	if title != r.title {
		fmt.Printf("\n%s\n", title)
		r.title = title
	}
	fmt.Println(line)
}

func (r *report) close() error {
	if r.json == nil {
		return nil
	}
	return r.json.Close()
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
