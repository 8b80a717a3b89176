package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/migration"
)

// memory is a line of the table of memory: what a planned swap in flight holds, in all processes together, beyond what
// a stream has that nobody moves.
type memory struct {
	Class   string  `json:"class"`
	State   int     `json:"state_bytes"`
	Swaps   int     `json:"swaps"`          // in flight at once
	Ready   float64 `json:"kib_when_ready"` // of each, once its target is ready and the cut is not made yet
	Peak    float64 `json:"kib_at_most"`    // of each on the way there, its state's copies
	Machine string  `json:"machine"`
}

func (m memory) title() string {
	return fmt.Sprintf("%-8s %9s %7s | %14s %14s", "memory", "state KiB", "swaps", "KiB when ready", "at most")
}

func (m memory) String() string {
	return fmt.Sprintf("%-8s %9d %7d | %14.1f %14.1f", "", m.State>>10, m.Swaps, m.Ready, m.Peak)
}

// memoryCases are few enough swaps that the last one is ready before the cut of the first one.
var memoryCases = []memory{{State: 0, Swaps: 500}, {State: 1 << 20, Swaps: 16}, {State: 16 << 20, Swaps: 2}}

// still is a token interval in which all swaps of a case can get ready. Their cuts wait for a token, for a second.
const still = 4 * time.Second

func (o options) memoryOf(ctx context.Context, m memory) (memory, error) {
	m.Class, m.Machine = "memory", machine()
	c, err := startInside(ctx, func(d *config.Director) {
		d.MaxConcurrentSwaps, d.MaxSwapsPerTarget, d.TokenRate = m.Swaps, m.Swaps, 1<<20
		d.CheckpointInterval, d.TokenTimeoutMin = 0, time.Minute
	}, func(w *config.Worker) {
		w.TokenInterval = still
		if m.State > 0 {
			w.Engine, w.StateBytes = "stateful", m.State
		}
	})
	if err != nil {
		return m, err
	}
	defer c.end()
	l, err := begin(ctx, c, m.Swaps)
	if err != nil {
		return m, err
	}
	defer l.end()
	calm := inUse()
	peak := watchPeak()
	ready, err := c.peakReady(ctx, m.Swaps)
	per := func(u usage) float64 { return (float64(u) - float64(calm)) / float64(m.Swaps) / 1024 }
	m.Ready, m.Peak = per(ready), per(max(ready, peak()))
	return m, err
}

// peakReady drains worker a and returns the memory in use when all swaps are ready for their cuts.
func (c *inside) peakReady(ctx context.Context, swaps int) (usage, error) {
	ctx, cancel := context.WithCancel(ctx)
	drained := make(chan error, 1)
	go func() {
		defer close(drained)
		_, err := c.operator.Drain(ctx, "a", drainTimeout, false, nil)
		drained <- err
	}()
	defer func() {
		cancel()
		for range drained { // nothing of it runs any more
		}
	}()
	for {
		select {
		case err := <-drained:
			return 0, errors.Join(fmt.Errorf("%d swaps were never in flight all at once: the machine is too busy", swaps), err)
		default:
		}
		ready, err := c.ready(ctx)
		if err != nil {
			return 0, err
		}
		if ready == swaps {
			return inUse(), nil
		}
	}
}

// ready returns how many swaps wait for their cut.
func (c *inside) ready(ctx context.Context) (int, error) {
	status, err := c.operator.Status(ctx)
	n := 0
	for _, s := range status.Swaps {
		if s.State == migration.Pivoting.String() {
			n++
		}
	}
	return n, err
}

// usage is memory in bytes.
type usage uint64

// inUse returns how much memory this process needs: heap and stacks, without what can be collected.
func inUse() usage {
	runtime.GC()
	runtime.GC() // pools keep what they have for one more
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return usage(stats.HeapAlloc + stats.StackInuse)
}

// watchPeak watches the memory in use until the function that it returns is called, which tells the most there was. To
// see that, garbage is collected all the time.
func watchPeak() (most func() usage) {
	percent := debug.SetGCPercent(2)
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	var peak usage
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			metrics.Read(samples)
			peak = max(peak, usage(samples[0].Value.Uint64()+samples[1].Value.Uint64()))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() usage {
		close(stop)
		<-stopped
		debug.SetGCPercent(percent)
		return peak
	}
}
