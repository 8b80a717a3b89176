package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/shared/identity"
)

// relayDefault is the growth from 100 to 10,000 streams, ten of each client, and flat out.
const relayDefault = "100/10/50,1000/100/50,10000/1000/5,64/8/0"

// systemsDefault are what is compared: the project, and the relays that it is divided by. connswap=DIR is the project
// with another build of the director.
const systemsDefault = "connswap,quic,grpc"

// cost is what one system took in one round.
type cost struct {
	Director float64 `json:"director_cpu_us"` // of each token
	All      float64 `json:"all_cpu_us"`      // of each token, worker and client with it
	P50      float64 `json:"p50_ms"`          // from the step to the reader; 0 flat out
	P99      float64 `json:"p99_ms"`
	Rate     float64 `json:"tokens_per_s"`
	Others   float64 `json:"others_percent"` // of the machine's CPU time, used by others
}

// measures are the columns of the tables.
var measures = []struct {
	name string
	of   func(cost) float64
}{
	{"director µs", func(c cost) float64 { return c.Director }},
	{"all µs", func(c cost) float64 { return c.All }},
	{"p50 ms", func(c cost) float64 { return c.P50 }},
	{"p99 ms", func(c cost) float64 { return c.P99 }},
	{"tokens/s", func(c cost) float64 { return c.Rate }},
}

// comparison is one case: a few lines of two tables.
type comparison struct {
	Class   string            `json:"class"`
	Load    part.Load         `json:"load"`
	Systems []string          `json:"systems"`
	Costs   map[string][]cost `json:"costs"` // of each system, one a round
	Machine string            `json:"machine"`
}

// beside compares the project with bare relays, in each case and round one after the other.
func (o options) beside(ctx context.Context, r *report) error {
	var all []comparison
	for _, text := range o.relays {
		load, err := part.ParseLoad(text)
		if err != nil {
			return fmt.Errorf("-relay: %w", err)
		}
		c := comparison{Class: "relay", Load: load, Systems: o.systems, Costs: map[string][]cost{}, Machine: machine()}
		for round := range o.rounds {
			for i := range o.systems {
				system := o.systems[(i+round)%len(o.systems)] // none is always the one that follows another
				cost, err := o.carry(ctx, system, load)
				if err != nil {
					return fmt.Errorf("%s, %v streams/clients/rate, round %d: %w", system, load, round+1, err)
				}
				c.Costs[system] = append(c.Costs[system], cost)
			}
		}
		if err := r.add(c); err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, c := range all {
		r.print(c.ratioTitle(), c.ratios())
	}
	return nil
}

// carry starts one system, and measures it once it is warm.
func (o options) carry(ctx context.Context, name string, load part.Load) (c cost, err error) {
	s, err := o.assemble(ctx, name, load)
	if err != nil {
		return c, err
	}
	defer s.stop()
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
	answer, err := s.client.ask("stop")
	if err != nil {
		return c, err
	}
	var seen part.Result
	if err := json.Unmarshal([]byte(answer), &seen); err != nil {
		return c, err
	}
	return costOf(after.since(before), seen)
}

func costOf(used cpuSpan, seen part.Result) (cost, error) {
	if seen.Tokens == 0 {
		return cost{}, errors.New("no token arrived")
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(seen.Tokens) }
	return cost{
		Director: each(used.processes[0]), All: each(used.sum()),
		P50: seen.P50, P99: seen.P99, Rate: float64(seen.Tokens) / seen.Seconds,
		Others: 100 * float64(used.machine-used.sum()) / float64(used.capacity()),
	}, nil
}

// system is three processes, whose tokens flow.
type system struct {
	director       *exec.Cmd
	worker, client *child
	ends           []func()
}

func (s *system) processes() []*exec.Cmd { return []*exec.Cmd{s.director, s.worker.Cmd, s.client.Cmd} }

func (s *system) stop() {
	for _, end := range slices.Backward(s.ends) {
		end()
	}
}

// start starts a process that ends with the system.
func (s *system) start(ctx context.Context, name string, setup part.Setup) (*child, error) {
	c, err := startChild(ctx, filepath.Dir(setup.Certs), name, setup)
	if err == nil {
		s.ends = append(s.ends, func() { _ = c.end() }) // it has said what it had to say
	}
	return c, err
}

func (o options) assemble(ctx context.Context, name string, load part.Load) (*system, error) {
	s := &system{}
	name, bin, _ := strings.Cut(name, "=")
	var err error
	if name == "connswap" {
		err = s.assembleOwn(ctx, cmp.Or(bin, o.bin), load)
	} else {
		err = s.assembleRelay(ctx, name, load)
	}
	if err != nil {
		s.stop()
	}
	return s, err
}

// assembleOwn starts the project, with a director that lets there be as many streams as the relays do.
func (s *system) assembleOwn(ctx context.Context, bin string, load part.Load) error {
	c, err := start(bin, "CONNECTION_SWAP_LOG_LEVEL=warn",
		fmt.Sprintf("CONNECTION_SWAP_DIRECTOR_MAX_SESSIONS=%d", max(10_000, load.Streams)))
	if err != nil {
		return err
	}
	s.ends, s.director = append(s.ends, c.Stop), c.Director
	setup := part.Setup{
		Load: load, Certs: filepath.Join(c.Dir, "certs"),
		Listen: []string{cluster.Addr(c.Ports[2]), cluster.Addr(c.Ports[3])}, Target: cluster.Addr(c.Ports[1]),
	}
	if s.worker, err = s.start(ctx, "connswap/worker", setup); err != nil {
		return err
	}
	if err := c.Await(ctx, "a"); err != nil {
		return err
	}
	setup.Listen, setup.Target = nil, cluster.Addr(c.Ports[0])
	if s.client, err = s.start(ctx, "connswap/client", setup); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Logs())
	}
	return nil
}

func (s *system) assembleRelay(ctx context.Context, name string, load part.Load) error {
	dir, err := os.MkdirTemp("", "connswap-bench-")
	if err != nil {
		return err
	}
	s.ends = append(s.ends, func() { _ = os.RemoveAll(dir) }) // the next run does not need the room
	setup := part.Setup{Load: load, Certs: filepath.Join(dir, "certs")}
	if _, err := identity.EnsureDevelopment(setup.Certs, time.Now()); err != nil {
		return err
	}
	ports, err := cluster.FreePorts(2)
	if err != nil {
		return err
	}
	setup.Listen = []string{cluster.Addr(ports[0])}
	if s.worker, err = s.start(ctx, name+"/worker", setup); err != nil {
		return err
	}
	setup.Listen, setup.Target = []string{cluster.Addr(ports[1])}, cluster.Addr(ports[0])
	relay, err := s.start(ctx, name+"/relay", setup)
	if err != nil {
		return err
	}
	s.director = relay.Cmd
	setup.Listen, setup.Target = nil, cluster.Addr(ports[1])
	s.client, err = s.start(ctx, name+"/client", setup)
	return err
}

// median of the values, and their range.
func median(values []float64) (middle, least, most float64) {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]
}

func (c comparison) title() string {
	title := fmt.Sprintf("%-8s %7s %7s %6s |", "relay", "streams", "clients", "each/s")
	for _, m := range measures {
		title += fmt.Sprintf(" %24s |", m.name)
	}
	return title + " others %"
}

func (c comparison) String() string {
	lines := make([]string, len(c.Systems))
	for i, system := range c.Systems {
		lines[i] = fmt.Sprintf("%-8s %7d %7d %6d |", system, c.Load.Streams, c.Load.Clients, c.Load.Rate)
		column := func(of func(cost) float64) (middle, least, most float64) {
			var values []float64
			for _, cost := range c.Costs[system] {
				values = append(values, of(cost))
			}
			return median(values)
		}
		for _, m := range measures {
			middle, least, most := column(m.of)
			switch {
			case most == 0: // not measured
				lines[i] += fmt.Sprintf(" %24s |", "-")
			case middle >= 1000:
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

func (c comparison) ratioTitle() string {
	title := fmt.Sprintf("%-8s %7s %7s %6s |", "ratios", "streams", "clients", "each/s")
	for _, m := range measures {
		title += fmt.Sprintf(" %-35s|", strings.Fields(m.name)[0]+" / "+strings.Join(c.Systems[1:], ", / "))
	}
	return title
}

// ratios is a line of the second table: by each measure, what the first system takes of what the others take in the same
// round, the median of all rounds and their range.
func (c comparison) ratios() string {
	line := fmt.Sprintf("%-8s %7d %7d %6d |", "", c.Load.Streams, c.Load.Clients, c.Load.Rate)
	for _, m := range measures {
		for _, system := range c.Systems[1:] {
			var values []float64
			for i, own := range c.Costs[c.Systems[0]] {
				if other := m.of(c.Costs[system][i]); other > 0 {
					values = append(values, m.of(own)/other)
				}
			}
			if len(values) == 0 { // not measured
				line += fmt.Sprintf(" %16s", "-")
				continue
			}
			middle, least, most := median(values)
			line += fmt.Sprintf(" %5.2f (%.2f-%.2f)", middle, least, most)
		}
		line += " |"
	}
	return line
}
