// Command soak looks for leaks. It runs a director and workers as real processes on loopback for a time: streams come and go
// while workers are killed, stopped in order, frozen and drained, and clients stall and leave. Every stream has to be what it
// would have been without that; and of the director, of two workers that live through it all, and of the clients, which are
// in this process, memory, goroutines and descriptors have to stay as they are: see judge.go.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

func main() {
	bin := flag.String("bin", "bin", "directory with the binaries director, worker and client")
	last := flag.Duration("for", time.Minute, "how long")
	clients := flag.Int("clients", 24, "streams at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := soak(ctx, *bin, *last, *clients)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// engines of the workers, each of which two have: the first of them lives through all.
var engines = map[string]string{"a": "markov", "b": "markov", "c": "stateful", "d": "stateful"}

// models are these engines, once each: as workers name them, and streams.
var models = []string{"markov", "stateful"}

// soak reports whether all went well.
func soak(ctx context.Context, bin string, last time.Duration, clients int) (ok bool, err error) {
	c, err := cluster.Start(bin, len(engines),
		// What is remembered of what has ended is bounded, by time among others: so that it is full soon.
		"CONNECTION_SWAP_DIRECTOR_SESSION_RETENTION=2s", "CONNECTION_SWAP_DIRECTOR_CHECKPOINT_INTERVAL=1s",
		"CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=20ms", "CONNECTION_SWAP_WORKER_STATE_BYTES=65536",
		"CONNECTION_SWAP_WORKER_DRAIN_TIMEOUT=5s", "CONNECTION_SWAP_LOG_FORMAT=json",
	)
	if err != nil {
		return false, err
	}
	defer c.Stop()
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := work(ctx, c, name); err != nil {
			return false, err
		}
	}
	texts, err := learn(ctx, c)
	if err != nil {
		return false, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	ctx, cancel := context.WithTimeout(ctx, last)
	defer cancel()
	load := &load{cluster: c, texts: texts}
	faults := &faults{cluster: c}
	samples := newSamples(c)
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		group.Go(func() error { return load.client(ctx, uint64(i)) })
	}
	group.Go(func() error { return load.programs(ctx) })
	group.Go(func() error { return faults.run(ctx) })
	group.Go(func() error { return samples.take(ctx, interval(last)) })
	if err := group.Wait(); err != nil {
		return false, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	fmt.Printf("%v: %s; %s\n", last, load, faults)
	return samples.report(), nil
}

func work(ctx context.Context, c *cluster.Cluster, name string) error {
	return c.Work(ctx, name, "CONNECTION_SWAP_WORKER_ENGINE="+engines[name])
}

// interval is how often values are read: some hundred times, and each second at most rarely.
func interval(last time.Duration) time.Duration {
	return min(max(last/600, 250*time.Millisecond), 5*time.Second)
}

// warmUp is the part of a run in which pools and tables fill, and is not looked at.
func warmUp(points []point) []point { return slices.Clone(points[len(points)/3:]) }
