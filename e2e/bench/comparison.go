package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
)

// contest is systems that carry the same loads, to be compared.
type contest struct {
	class    string
	systems  []string // the first one is divided by the others
	measures []measure
	assemble func(ctx context.Context, system string, load part.Load) (*system, error)
}

// cost is what one system took in one round.
type cost struct {
	Director float64    `json:"director_cpu_us"` // of each token; of whatever is in its place
	All      float64    `json:"all_cpu_us"`      // of each token, worker and client with it
	P50      float64    `json:"p50_ms"`          // from the step to the reader; 0 flat out
	P99      float64    `json:"p99_ms"`
	First    part.First `json:"first"`        // from the request to the first event
	Memory   float64    `json:"director_kib"` // of each stream
	Rate     float64    `json:"tokens_per_s"`
	Others   float64    `json:"others_percent"` // of the machine's CPU time, used by others
	Event    int64      `json:"event_bytes"`
}

// measure is a column of the tables.
type measure struct {
	name string
	of   func(cost) float64
}

var (
	perToken = []measure{
		{"director µs", func(c cost) float64 { return c.Director }},
		{"all µs", func(c cost) float64 { return c.All }},
		{"p50 ms", func(c cost) float64 { return c.P50 }},
		{"p99 ms", func(c cost) float64 { return c.P99 }},
	}
	relayMeasures = append(slices.Clip(perToken), measure{"tokens/s", func(c cost) float64 { return c.Rate }})
	httpMeasures  = append(slices.Clip(perToken),
		measure{"first p50 ms", func(c cost) float64 { return c.First.P50 }},
		measure{"first p99 ms", func(c cost) float64 { return c.First.P99 }},
		measure{"KiB a stream", func(c cost) float64 { return c.Memory }})
)

// comparison is one load: a few lines of each table.
type comparison struct {
	Class    string            `json:"class"`
	Load     part.Load         `json:"load"`
	Systems  []string          `json:"systems"`
	Costs    map[string][]cost `json:"costs"` // of each system, one a round
	Machine  string            `json:"machine"`
	measures []measure
}

// compare measures each load and round with one system after the other.
func (o options) compare(ctx context.Context, r *report, of contest, loads []part.Load) error {
	var all []comparison
	for _, load := range loads {
		c := comparison{Class: of.class, Load: load, Systems: of.systems, Costs: map[string][]cost{}, Machine: machine(), measures: of.measures}
		for round := range o.rounds {
			for i := range of.systems {
				system := of.systems[(i+round)%len(of.systems)] // none is always the one that follows another
				s, err := of.assemble(ctx, system, load)
				if err != nil {
					return fmt.Errorf("%s, %v streams/clients/rate, round %d: %w", system, load, round+1, err)
				}
				cost, err := o.carry(ctx, s)
				s.stop()
				if err != nil {
					return fmt.Errorf("%s, %v streams/clients/rate, round %d: %w", system, load, round+1, err)
				}
				c.Costs[system] = append(c.Costs[system], cost)
			}
		}
		if err := c.sameEvents(); err != nil {
			return err
		}
		if err := r.add(c); err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, c := range all {
		for _, other := range c.Systems[1:] {
			if other != direct {
				r.print(c.heading("ratios"), c.against(c.Systems[0], other, func(own, other float64) float64 { return own / other }))
			}
		}
	}
	for _, c := range all {
		if !slices.Contains(c.Systems, direct) {
			continue
		}
		for _, system := range c.Systems {
			if system != direct {
				r.print(c.heading("added"), c.against(system, direct, func(own, other float64) float64 { return own - other }))
			}
		}
	}
	return nil
}

// direct is the system with nothing in the middle.
const direct = "direct"

// sameEvents checks that no system has less to carry.
func (c comparison) sameEvents() error {
	size := c.Costs[c.Systems[0]][0].Event
	for system, costs := range c.Costs {
		for _, cost := range costs {
			if cost.Event != size {
				return fmt.Errorf("an event of %s has %d bytes, one of %s %d", system, cost.Event, c.Systems[0], size)
			}
		}
	}
	return nil
}

// carry measures a system once it is warm.
func (o options) carry(ctx context.Context, s *system) (c cost, err error) {
	if err := sleep(ctx, o.record/4); err != nil {
		return c, err
	}
	if _, err := s.client.ask("record"); err != nil {
		return c, err
	}
	before, err := readUsage(s.processes())
	if err != nil {
		return c, err
	}
	if err := sleep(ctx, o.record); err != nil {
		return c, err
	}
	after, err := readUsage(s.processes())
	if err != nil {
		return c, err
	}
	var seen part.Result
	if err := s.client.askFor("stop", &seen); err != nil {
		return c, err
	}
	if c, err = costOf(after.since(before), seen); err != nil || !s.probed {
		return c, err
	}
	if s.director != nil && s.streams >= 100 { // fewer are not seen beside what it has anyway
		memory, err := cluster.Memory(s.director.Process.Pid)
		if err != nil {
			return c, err
		}
		c.Memory = max(0, memory-s.idle) * 1024 / float64(s.streams)
	}
	return c, s.client.askFor("probe", &c.First)
}

func costOf(used cpuSpan, seen part.Result) (cost, error) {
	if seen.Tokens == 0 {
		return cost{}, errors.New("no token arrived")
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(seen.Tokens) }
	ends := used.processes[0] + used.processes[1]
	return cost{
		Director: each(used.sum() - ends), All: each(used.sum()),
		P50: seen.P50, P99: seen.P99, Rate: float64(seen.Tokens) / seen.Seconds, Event: seen.Event,
		Others: 100 * float64(used.machine-used.sum()) / float64(used.capacity()),
	}, nil
}

// system is processes whose tokens flow.
type system struct {
	worker, client *child
	director       *exec.Cmd // or what is in its place; nil for nothing
	dir            string    // for their files
	ends           []func()

	probed  bool // first events and memory are measured too
	streams int
	idle    float64 // MiB of the director before there are streams
}

// processes are worker and client, and what is between them.
func (s *system) processes() []*exec.Cmd {
	all := []*exec.Cmd{s.worker.Cmd, s.client.Cmd}
	if s.director != nil {
		all = append(all, s.director)
	}
	return all
}

func (s *system) stop() {
	for _, end := range slices.Backward(s.ends) {
		end()
	}
}

// place makes a directory for the files of the processes.
func (s *system) place() (err error) {
	if s.dir, err = os.MkdirTemp("", "connswap-bench-"); err == nil {
		s.ends = append(s.ends, func() { _ = os.RemoveAll(s.dir) }) // the next run does not need the room
	}
	return err
}

// start starts a process that ends with the system.
func (s *system) start(ctx context.Context, name string, setup part.Setup) (*child, error) {
	c, err := startChild(ctx, s.dir, name, setup)
	if err == nil {
		s.ends = append(s.ends, func() { _ = c.end() }) // it has said what it had to say
	}
	return c, err
}

// median of the values, and their range.
func median(values []float64) (middle, least, most float64) {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]
}

func (c comparison) title() string { return c.heading(c.Class) + " others %" }

// heading is that of a table of this comparison.
func (c comparison) heading(name string) string {
	title := fmt.Sprintf("%-20s %7s %7s %6s |", name, "streams", "clients", "each/s")
	for _, m := range c.measures {
		title += fmt.Sprintf(" %24s |", m.name)
	}
	return title
}

// row begins a line of it.
func (c comparison) row(name string) string {
	return fmt.Sprintf("%-20s %7d %7d %6d |", name, c.Load.Streams, c.Load.Clients, c.Load.Rate)
}

func (c comparison) String() string {
	lines := make([]string, len(c.Systems))
	for i, system := range c.Systems {
		lines[i] = c.row(system)
		column := func(of func(cost) float64) (middle, least, most float64) {
			var values []float64
			for _, cost := range c.Costs[system] {
				values = append(values, of(cost))
			}
			return median(values)
		}
		for _, m := range c.measures {
			middle, least, most := column(m.of)
			switch {
			case most == 0: // not measured
				lines[i] += fmt.Sprintf(" %24s |", "-")
			case middle >= 10_000:
				lines[i] += fmt.Sprintf(" %8.0fk (%4.0f to %5.0f) |", middle/1000, least/1000, most/1000)
			default:
				lines[i] += fmt.Sprintf(" %8.2f (%5.1f to %5.1f) |", middle, least, most)
			}
		}
		others, _, _ := column(func(c cost) float64 { return c.Others })
		lines[i] += fmt.Sprintf(" %8.0f", others)
	}
	return strings.Join(lines, "\n")
}

// against is a line that compares one system with another, by each measure in the same round: the median of all rounds and their
// range.
func (c comparison) against(system, other string, compare func(system, other float64) float64) string {
	line := c.row(system + " / " + other)
	for _, m := range c.measures {
		var values []float64
		for i, own := range c.Costs[system] {
			if beside := m.of(c.Costs[other][i]); beside > 0 {
				values = append(values, compare(m.of(own), beside))
			}
		}
		if len(values) == 0 { // not measured
			line += fmt.Sprintf(" %24s |", "-")
			continue
		}
		middle, least, most := median(values)
		line += fmt.Sprintf(" %8.2f (%5.2f to %5.2f) |", middle, least, most)
	}
	return line
}
