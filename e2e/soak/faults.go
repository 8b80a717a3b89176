package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
)

// faults happen to workers b and d, one after the other.
type faults struct {
	cluster *cluster.Cluster
	counts  map[string]int
}

func (f *faults) String() string {
	var all []string
	for name, n := range f.counts {
		all = append(all, fmt.Sprintf("%d %s", n, name))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// run lets something happen to a worker every few seconds, and mends it, until ctx ends.
func (f *faults) run(ctx context.Context) error {
	f.counts = map[string]int{}
	tls, err := identity.FromDir(filepath.Join(f.cluster.Dir, "certs"), identity.Operator)
	if err != nil {
		return err
	}
	director := cluster.Addr(f.cluster.Ports[1])
	happens := []struct {
		name string
		to   func(ctx context.Context, worker string) error
	}{
		{"killed", func(ctx context.Context, worker string) error {
			if err := cluster.Kill(f.cluster.Workers[worker]); err != nil {
				return err
			}
			return work(ctx, f.cluster, worker)
		}},
		{"stopped in order", func(ctx context.Context, worker string) error {
			if err := f.cluster.Workers[worker].Process.Signal(syscall.SIGTERM); err != nil {
				return err
			}
			if err := f.cluster.Workers[worker].Wait(); err != nil {
				return err
			}
			return work(ctx, f.cluster, worker)
		}},
		{"frozen", func(ctx context.Context, worker string) error {
			process := f.cluster.Workers[worker].Process
			if err := process.Signal(syscall.SIGSTOP); err != nil {
				return err
			}
			wait(ctx, time.Second)
			if err := process.Signal(syscall.SIGCONT); err != nil {
				return err
			}
			return f.cluster.Await(ctx, worker)
		}},
		{"drained", func(ctx context.Context, worker string) error {
			client, err := operator.Dial(ctx, director, operator.Options{TLS: tls})
			if err != nil {
				return err
			}
			defer client.Close() //nolint:errcheck // all has been asked
			if _, err := client.Drain(ctx, worker, 30*time.Second, false, nil); err != nil {
				return err
			}
			return client.Undrain(ctx, worker)
		}},
	}
	r := rand.New(rand.NewPCG(7, 7))
	for ctx.Err() == nil {
		wait(ctx, time.Second+time.Duration(r.IntN(2000))*time.Millisecond)
		what, worker := happens[r.IntN(len(happens))], []string{"b", "d"}[r.IntN(2)]
		if err := what.to(ctx, worker); err != nil && ctx.Err() == nil {
			return fmt.Errorf("worker %s, %s: %w", worker, what.name, err)
		}
		f.counts[what.name]++
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
