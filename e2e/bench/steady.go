package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// steady is a line of the table of tokens that flow undisturbed: what they cost.
type steady struct {
	Class    string  `json:"class"`
	Streams  int     `json:"streams"`
	Interval float64 `json:"interval_ms"`
	Tokens   int     `json:"tokens"`
	Director float64 `json:"director_cpu_us"` // of each token
	Worker   float64 `json:"worker_cpu_us"`
	Made     float64 `json:"checkpoints_per_s"`
	Bin      string  `json:"bin"`
	Machine  string  `json:"machine"`
}

func (s steady) title() string {
	return fmt.Sprintf("%-8s %8s %9s %9s | %12s %12s | %13s | %s", "steady", "streams", "interval", "tokens", "director µs", "worker µs", "checkpoints/s", "CPU per token")
}

func (s steady) String() string {
	return fmt.Sprintf("%-8s %8d %7.0fms %9d | %12.3f %12.3f | %13.1f | %s", "", s.Streams, s.Interval, s.Tokens, s.Director, s.Worker, s.Made, s.Bin)
}

// undisturbed lets 1,000 streams run for a while, and counts the CPU time of the director and of their worker.
func (o options) undisturbed(ctx context.Context) (steady, error) {
	const streams = 1000
	interval := intervalFor(streams)
	s := steady{Class: "steady", Streams: streams, Interval: milliseconds(interval), Bin: o.bin, Machine: machine()}
	c, err := o.cluster("none", interval, streams)
	if err != nil {
		return s, err
	}
	defer c.Stop()
	l, err := begin(ctx, c, streams)
	if err != nil {
		return s, err
	}
	defer l.end()
	if err := sleep(ctx, max(2*time.Second, o.calm)); err != nil { // let it get warm
		return s, err
	}
	both := []*exec.Cmd{c.Director, c.Workers["a"]}
	tokens := -l.tokens()
	made, err := c.checkpoints()
	if err != nil {
		return s, err
	}
	before, err := cpuTimes(both)
	if err != nil {
		return s, err
	}
	if err := sleep(ctx, o.steady); err != nil {
		return s, err
	}
	after, err := cpuTimes(both)
	tokens += l.tokens()
	each := func(i int) float64 { return float64((after[i] - before[i]).Microseconds()) / float64(tokens) }
	if err != nil {
		return s, err
	}
	s.Tokens, s.Director, s.Worker = tokens, each(0), each(1)
	more, err := c.checkpoints()
	s.Made = float64(more-made) / o.steady.Seconds()
	return s, err
}

// checkpoints returns how many were made so far.
func (c *outside) checkpoints() (int, error) {
	var status struct{ Made int }
	err := c.Status("/v1/checkpoints", &status)
	return status.Made, err
}
