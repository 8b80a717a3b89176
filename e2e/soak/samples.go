package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/shared/telemetry"
)

// watched are the processes whose values are read, in the order in which they are shown.
var watched = []string{"director", "worker a", "worker c", "clients"}

// samples are values of the processes that live through a run.
type samples struct {
	cluster *cluster.Cluster
	points  map[string][][]point // by process, then as quantities are
}

func newSamples(c *cluster.Cluster) *samples {
	s := &samples{cluster: c, points: map[string][][]point{}}
	for _, name := range watched {
		s.points[name] = make([][]point, len(quantities))
	}
	return s
}

// take reads values at an interval until ctx ends.
func (s *samples) take(ctx context.Context, every time.Duration) error {
	start := time.Now()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		for _, name := range watched {
			values, err := s.read(name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for i, value := range values {
				s.points[name][i] = append(s.points[name][i], point{time.Since(start).Seconds(), value})
			}
		}
	}
}

// read returns the values of a process, as quantities are: what it says itself, and its memory by the system.
func (s *samples) read(name string) ([]float64, error) {
	var status struct {
		Process telemetry.Process `json:"process"`
	}
	pid, err := os.Getpid(), error(nil)
	switch name {
	case "director":
		pid, err = s.cluster.Director.Process.Pid, s.cluster.Status("/v1/status", &status)
	case "clients":
		status.Process = telemetry.ReadProcess()
	default:
		worker := name[len("worker "):]
		pid, err = s.cluster.Workers[worker].Process.Pid, s.cluster.WorkerStatus(worker, "/v1/status", &status)
	}
	if err != nil {
		return nil, err
	}
	memory, err := cluster.Memory(pid)
	p := status.Process
	return []float64{float64(p.HeapBytes) / (1 << 20), memory, float64(p.Goroutines), float64(p.Descriptors)}, err
}

// report shows what the values say, and reports whether nothing grows.
func (s *samples) report() (ok bool) {
	fmt.Printf("%-10s %-12s %9s %9s   %-9s %-4s\n", "process", "what", "mean", "an hour", "error", "")
	ok = true
	for _, name := range watched {
		for i, q := range quantities {
			line, v := q.line(name, warmUp(s.points[name][i]))
			fmt.Println(line)
			ok = ok && v != growing
		}
	}
	return ok
}
