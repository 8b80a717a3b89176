package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

// class is a way for a worker to fail.
type class struct {
	name string
	mode string // CONNECTION_SWAP_WORKER_FAILURE_MODE
	// fail lets the worker fail now; mend, where there is one, makes it whole again. Workers that fail by
	// themselves recover by themselves.
	fail func(c *outside, worker string) error
	mend func(ctx context.Context, c *outside, worker string) error
}

func signalled(sig os.Signal) func(*outside, string) error {
	return func(c *outside, worker string) error { return c.Workers[worker].Process.Signal(sig) }
}

var classes = []class{
	{name: "error", mode: "error", fail: signalled(syscall.SIGUSR1)},
	{
		name: "exit", mode: "none",
		fail: func(c *outside, worker string) error { return c.Workers[worker].Process.Kill() },
		mend: func(ctx context.Context, c *outside, worker string) error {
			_ = c.Workers[worker].Wait() // it says that the process was killed
			return c.Work(ctx, worker)
		},
	},
	{name: "hang", mode: "hang", fail: signalled(syscall.SIGUSR1)},
	{name: "drop", mode: "drop", fail: signalled(syscall.SIGUSR1)},
	{
		name: "stop", mode: "none", fail: signalled(syscall.SIGSTOP),
		mend: func(ctx context.Context, c *outside, worker string) error {
			return c.Workers[worker].Process.Signal(syscall.SIGCONT)
		},
	},
}

func classNames() []string {
	names := make([]string, len(classes))
	for i, c := range classes {
		names[i] = c.name
	}
	return names
}

// recovery is how long simulated failures last: longer than any signal needs to notice them.
const recovery = time.Second

// intervalFor is the token interval: for many streams such that two cores carry them with room to spare.
func intervalFor(streams int) time.Duration {
	if streams > 100 {
		return 100 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// class measures one class of faults with so many streams, of clients that speak HTTP or of the project's own.
func (o options) class(ctx context.Context, name string, streams int, http bool) (result, error) {
	var cl class
	for _, c := range classes {
		if c.name == name {
			cl = c
		}
	}
	if cl.name == "" {
		return result{}, fmt.Errorf("unknown class; there are %v", classNames())
	}
	interval := intervalFor(streams)
	c, err := o.cluster(cl.mode, interval, streams)
	if err != nil {
		return result{}, err
	}
	defer c.Stop()
	open, take := native(c), (*reader).takeSwap
	if http {
		name, open, take = name+" http", overHTTP(c.Addr()), (*reader).takeLongest
	}
	l, err := beginWith(ctx, c, streams, open)
	if err != nil {
		return result{}, err
	}
	defer l.end()
	if o.state > 0 {
		name += fmt.Sprint(" ", o.state)
	}
	r := result{Class: name, Streams: streams, Interval: milliseconds(interval), Machine: machine()}
	var gaps, outages []time.Duration
	serving, spare := "a", "b"
	for range o.faults {
		if err := sleep(ctx, o.calm); err != nil {
			return r, err
		}
		at, err := l.fault(ctx, c, cl, serving, http)
		if err != nil {
			return r, fmt.Errorf("fault %d: %w\n%s", r.Faults+1, err, c.Logs())
		}
		for _, s := range l.streams {
			swap := take(s)
			gaps = append(gaps, swap.gap-interval)
			outages = append(outages, swap.resumed.Sub(at))
		}
		r.Faults++
		if cl.mend != nil {
			if err := cl.mend(ctx, c, serving); err != nil {
				return r, err
			}
		}
		if err := l.awaitRhythm(ctx, c, serving, interval); err != nil {
			return r, err
		}
		serving, spare = spare, serving
	}
	total, err := c.Swaps()
	r.Samples, r.Gap, r.Outage, r.False = len(gaps), summarize(gaps), summarize(outages), total-len(gaps)
	return r, err
}

// settings are those of all processes.
func settings(interval time.Duration, streams int) []string {
	return []string{
		"CONNECTION_SWAP_LOG_LEVEL=warn", "CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=" + interval.String(),
		fmt.Sprintf("CONNECTION_SWAP_WORKER_CAPACITY=%d", 2*streams), "CONNECTION_SWAP_DIRECTOR_MAX_SWAPS_PER_MINUTE=100000",
	}
}

func (o options) cluster(mode string, interval time.Duration, streams int) (*outside, error) {
	return start(o.bin, append(append(settings(interval, streams), engine(o.state<<10, streams)...),
		"CONNECTION_SWAP_WORKER_FAILURE_MODE="+mode, "CONNECTION_SWAP_WORKER_RECOVERY="+recovery.String(),
		"CONNECTION_SWAP_WORKER_FAILURE_MIN=24h", "CONNECTION_SWAP_WORKER_FAILURE_MAX=24h", // only when told to
	)...)
}

// starved runs a stream while many processes compete for the CPU, and counts the swaps: all are false.
func (o options) starved(ctx context.Context) (result, error) {
	const streams = 50
	interval := intervalFor(streams)
	c, err := o.cluster("none", interval, streams)
	if err != nil {
		return result{}, err
	}
	defer c.Stop()
	l, err := begin(ctx, c, streams)
	if err != nil {
		return result{}, err
	}
	defer l.end()
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	for range 8 {
		burner := exec.Command(self, "-burn")
		if err := burner.Start(); err != nil {
			return result{}, err
		}
		defer cluster.Kill(burner) //nolint:errcheck // it burns until it is killed
	}
	select {
	case <-ctx.Done():
		return result{}, ctx.Err()
	case <-time.After(o.starve):
	}
	total, err := c.Swaps()
	return result{Class: "starvation", Streams: streams, Interval: milliseconds(interval), False: total, Machine: machine()}, err
}

// fault lets the serving worker fail, and waits until all streams have gone on. It returns when it failed.
func (l *load) fault(ctx context.Context, c *outside, cl class, serving string, http bool) (time.Time, error) {
	before, err := c.Swaps()
	if err != nil {
		return time.Time{}, err
	}
	l.takePauses(0)
	at := time.Now()
	if err := cl.fail(c, serving); err != nil {
		return at, err
	}
	if http {
		return at, l.awaitUnseen(ctx, c, before+len(l.streams))
	}
	for i, r := range l.streams {
		if err := r.awaitSwap(ctx); err != nil {
			return at, fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return at, nil
}

// awaitUnseen waits until the director has counted so many swaps, and every stream has gone on: clients of HTTP are not told.
func (l *load) awaitUnseen(ctx context.Context, c *outside, swaps int) error {
	for deadline := time.Now().Add(waitTimeout); ; {
		total, err := c.Swaps()
		if err != nil {
			return err
		}
		if total >= swaps {
			return l.awaitTokens(ctx, 1)
		}
		if err := l.failed(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d swaps, want %d", total, swaps)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}
