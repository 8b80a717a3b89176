package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/client/connswap"
)

// routingDefault are all policies; "default" is whatever the director does without being told.
const routingDefault = "round_robin,least_loaded,p2c"

// fleets are workers that a policy has to tell apart, or not.
var fleets = []struct {
	name    string
	devices []part.Device
}{
	{"equal", []part.Device{{Label: "a", Capacity: 64, Slow: 1}, {Label: "b", Capacity: 64, Slow: 1}, {Label: "c", Capacity: 64, Slow: 1}}},
	{"one slow", []part.Device{{Label: "a", Capacity: 64, Slow: 1}, {Label: "b", Capacity: 64, Slow: 1}, {Label: "c", Capacity: 64, Slow: 3}}},
	{"one small", []part.Device{{Label: "a", Capacity: 64, Slow: 1}, {Label: "b", Capacity: 64, Slow: 1}, {Label: "c", Capacity: 8, Slow: 1}}},
}

const (
	arrivals     = 45 // requests per second, at random: a third is some 40 % of what a worker of Slow 1 can do
	fewestTokens = 10 // of a request; evenly up to the most
	mostTokens   = 90
	routedConns  = 10
)

// routed is a line of the table of routing.
type routed struct {
	Class    string         `json:"class"`
	Fleet    string         `json:"fleet"`
	Policy   string         `json:"policy"`
	Requests int            `json:"requests"`
	First    summary        `json:"first_ms"`   // from the request to its first token
	Between  summary        `json:"between_ms"` // two tokens
	Workers  map[string]int `json:"workers"`    // requests that each got
	Machine  string         `json:"machine"`

	first, between []time.Duration
}

func (r *routed) title() string {
	return fmt.Sprintf("%-9s %-9s %-12s %8s | %8s %8s %8s | %8s %8s %8s | %s", "routing", "workers", "policy", "requests",
		"first 50", "p99", "max ms", "betw. 50", "p99", "max ms", "requests of each")
}

func (r *routed) String() string {
	var each []string
	for _, label := range slices.Sorted(maps.Keys(r.Workers)) {
		each = append(each, fmt.Sprintf("%s %d", label, r.Workers[label]))
	}
	return fmt.Sprintf("%-9s %-9s %-12s %8d | %8.1f %8.1f %8.1f | %8.1f %8.1f %8.1f | %s", "", r.Fleet, r.Policy, r.Requests,
		r.First.P50, r.First.P99, r.First.Max, r.Between.P50, r.Between.P99, r.Between.Max, strings.Join(each, ", "))
}

// routing compares policies on each fleet, in turn, with the same requests at the same times.
func (o options) routing(ctx context.Context, r *report) error {
	for _, fleet := range fleets {
		lines := make([]*routed, len(o.policies))
		for i, policy := range o.policies {
			lines[i] = &routed{Class: "routing", Fleet: fleet.name, Policy: policy, Workers: map[string]int{}, Machine: machine()}
		}
		for round := range o.rounds {
			for _, line := range lines {
				if err := o.route(ctx, line, fleet.devices, uint64(round)); err != nil {
					return fmt.Errorf("routing by %s, %s, round %d: %w", line.Policy, fleet.name, round+1, err)
				}
			}
		}
		for _, line := range lines {
			line.Requests, line.First, line.Between = len(line.first), summarize(line.first), summarize(line.between)
			if err := r.add(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// route runs a director and a fleet, and adds to line what requests saw of them.
func (o options) route(ctx context.Context, line *routed, devices []part.Device, seed uint64) error {
	env := []string{"CONNECTION_SWAP_LOG_LEVEL=warn"}
	if line.Policy != "default" {
		env = append(env, "CONNECTION_SWAP_DIRECTOR_ROUTING="+line.Policy)
	}
	c, err := start(o.bin, env...)
	if err != nil {
		return err
	}
	defer c.Stop()
	ports, err := cluster.FreePorts(2 * len(devices))
	if err != nil {
		return err
	}
	for i, device := range devices {
		p, err := startChild(ctx, c.Dir, "device", part.Setup{
			Certs: filepath.Join(c.Dir, "certs"), Target: cluster.Addr(c.Ports[1]), Device: device,
			Listen: []string{cluster.Addr(ports[2*i]), cluster.Addr(ports[2*i+1])},
		})
		if err != nil {
			return err
		}
		defer p.end() //nolint:errcheck // what matters was measured
		if err := c.Await(ctx, device.Label); err != nil {
			return err
		}
	}
	if err := o.request(ctx, c, line, rand.New(rand.NewPCG(seed, 0))); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Logs())
	}
	return nil
}

// request makes requests at random times, whatever became of those before, and waits for all of them.
func (o options) request(ctx context.Context, c *outside, line *routed, random *rand.Rand) error {
	conns := make([]*connswap.Conn, routedConns)
	for i := range conns {
		var err error
		if conns[i], err = c.Dial(ctx); err != nil {
			return err
		}
		defer conns[i].Close() //nolint:errcheck // all has been read
	}
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	begin := time.Now()
	for at := time.Duration(0); at < o.record*5/4; at += time.Duration(random.ExpFloat64() * float64(time.Second) / arrivals) {
		if err := sleep(ctx, time.Until(begin.Add(at))); err != nil {
			return err
		}
		due, conn := begin.Add(at), conns[random.IntN(len(conns))]
		tokens := fewestTokens + random.Uint32N(mostTokens-fewestTokens+1)
		all.Go(func() {
			seen, err := ask(ctx, conn, due, tokens)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else if at >= o.record/4 { // it is warm
				line.first = append(line.first, seen.first)
				line.between = append(line.between, seen.between...)
				line.Workers[seen.worker]++
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// seen is what one request saw.
type seen struct {
	worker  string
	first   time.Duration
	between []time.Duration
}

func ask(ctx context.Context, conn *connswap.Conn, due time.Time, tokens uint32) (s seen, err error) {
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "bench", MaxTokens: tokens})
	if err != nil {
		return s, err
	}
	last := due
	for token, err := range stream.Tokens() {
		if err != nil {
			return s, err
		}
		now := time.Now()
		if token.Sequence == 1 {
			s.first, s.worker = now.Sub(due), token.Worker
		} else {
			s.between = append(s.between, now.Sub(last))
		}
		last = now
	}
	return s, nil
}
