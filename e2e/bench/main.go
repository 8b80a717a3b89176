// Command bench measures what a client sees of it when its streams change workers: because the worker under them
// fails, and because an operator wants it so; what a token costs beside relays that do nothing but pass it on, and over
// HTTP beside reverse proxies; and what policies of routing make of workers that differ.
//
// It starts real processes (bin/director, bin/worker) on loopback and is their client and operator itself; or, where it
// has to be the engine, their worker. It reports as tables, and as JSON lines with -json. See docs/BENCHMARKS.md for what
// is measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory with the binaries director and worker")
	flag.IntVar(&o.faults, "faults", 50, "faults of each class and number of streams")
	flag.IntVar(&o.moves, "moves", 30, "planned moves of all streams, for each case with one stream; a fifth of that with more, fewer with large states")
	flag.DurationVar(&o.starve, "starve", time.Minute, "how long to starve all processes of CPU, looking for false swaps; 0 to leave that out")
	flag.DurationVar(&o.steady, "steady", 0, "how long to measure the CPU time of tokens that flow undisturbed; 0 to leave that out")
	flag.BoolVar(&o.memory, "memory", true, "measure the memory of planned swaps in flight")
	flag.IntVar(&o.state, "state", 0, "KiB of state of each stream whose worker fails; 0 for an engine without")
	flag.DurationVar(&o.calm, "calm", 0, "how long streams run before each fault, or before their cost is measured: with a state, until there are checkpoints")
	flag.BoolVar(&o.resume, "resume", true, "measure how long clients that lost their director take to read on")
	only := flag.String("only", "", "parts to run, of "+strings.Join(parts, ", ")+"; empty for all")
	streams := flag.String("streams", "1,1000", "numbers of streams for the classes of faults")
	classes := flag.String("classes", strings.Join(classNames(), ","), "classes of faults; empty for none")
	cases := flag.String("planned", plannedDefault, "cases of planned swaps: KiB of state/streams; empty for none")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each case of -relay is measured, all systems in turn")
	flag.DurationVar(&o.record, "record", 8*time.Second, "how long each round of -relay measures one system; it warms up for a quarter of that")
	relays := flag.String("relay", relayDefault, "cases of tokens beside bare relays: streams/clients/tokens per second of each, 0 for flat out; empty for none")
	compared := flag.String("systems", systemsDefault, "what -relay compares; connswap=DIR is the project with the director of another directory")
	https := flag.String("http", httpDefault, "cases of streams over HTTP beside reverse proxies: streams/tokens per second of each, in as many rounds as -relay; empty for none")
	httpSystems := flag.String("http-systems", httpSystemsDefault, "what -http compares; connswap=DIR as with -systems")
	policies := flag.String("routing", routingDefault, "routing policies to compare, in as many rounds as -relay, as long each; default for the director's own; empty for none")
	positions := flag.String("inference", "10,100,1000", "after how many tokens of their streams inference servers are lost; empty for none")
	partName := flag.String("part", "", "only be one process of a system (used by the bench itself)")
	setup := flag.String("setup", "", "of -part")
	out := flag.String("json", "", "file to append JSON lines to")
	burner := flag.Bool("burn", false, "only burn one core (used by the bench itself)")
	flag.Parse()
	if *burner {
		burn()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o.streams, o.classes, o.cases = list(*streams), list(*classes), list(*cases)
	o.relays, o.systems, o.policies = list(*relays), list(*compared), list(*policies)
	o.https, o.httpSystems = list(*https), list(*httpSystems)
	err := o.atPositions(list(*positions))
	if err == nil {
		err = o.restrict(list(*only))
	}
	switch {
	case err != nil:
	case *partName != "":
		err = runPart(ctx, *partName, *setup)
	default:
		err = o.run(ctx, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	bin    string
	rounds int
	record time.Duration

	streams, classes []string // faults: each class by each number of streams
	faults           int
	doors            []bool // and by clients that speak HTTP (true) or not
	state            int
	calm             time.Duration
	starve           time.Duration

	cases []string // planned swaps
	moves int

	resume bool

	memory bool
	steady time.Duration

	relays, systems []string // each case with each system
	policies        []string // routing

	https, httpSystems []string // each case with each system

	positions []int // in a stream at which its inference server is lost
}

var parts = []string{"faults", "httpfaults", "planned", "resume", "memory", "steady", "relay", "http", "routing", "inference"}

// restrict leaves all parts out but those named, if any are.
func (o *options) restrict(only []string) error {
	for _, part := range only {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("-only=%s: there are %s", part, strings.Join(parts, ", "))
		}
	}
	without := func(part string) bool { return len(only) > 0 && !slices.Contains(only, part) }
	if !without("faults") {
		o.doors = append(o.doors, false)
	} else {
		o.starve = 0
	}
	if !without("httpfaults") {
		o.doors = append(o.doors, true)
	}
	if without("planned") {
		o.cases = nil
	}
	if without("resume") {
		o.resume = false
	}
	if without("memory") {
		o.memory = false
	}
	if without("steady") {
		o.steady = 0
	}
	if without("relay") {
		o.relays = nil
	}
	if without("http") {
		o.https = nil
	}
	if without("routing") {
		o.policies = nil
	}
	if without("inference") {
		o.positions = nil
	}
	return nil
}

// atPositions reads the positions at which inference servers are lost.
func (o *options) atPositions(positions []string) error {
	for _, text := range positions {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-inference=%s: want numbers above 0", text)
		}
		o.positions = append(o.positions, n)
	}
	return nil
}

func list(flag string) []string {
	return strings.FieldsFunc(flag, func(r rune) bool { return r == ',' || r == ' ' })
}

func (o options) run(ctx context.Context, out string) error {
	r, err := newReport(out)
	if err != nil {
		return err
	}
	defer r.close() //nolint:errcheck // each line was written, or reported
	fmt.Println(machine())
	for _, part := range []func(context.Context, *report) error{o.faulty, o.planned, o.resuming, o.costs, o.beside, o.overHTTP, o.routing, o.inference} {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// faulty lets workers fail, and then starves workers that do not.
func (o options) faulty(ctx context.Context, r *report) error {
	for _, n := range o.streams {
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 {
			return fmt.Errorf("-streams=%s: want numbers above 0", n)
		}
		for _, name := range o.classes {
			for _, http := range o.doors {
				line, err := o.class(ctx, name, count, http)
				if err != nil {
					return fmt.Errorf("%s with %d streams: %w", name, count, err)
				}
				if err := r.add(line); err != nil {
					return err
				}
			}
		}
	}
	if len(o.classes) == 0 || o.starve == 0 {
		return nil
	}
	line, err := o.starved(ctx)
	if err != nil {
		return fmt.Errorf("starvation: %w", err)
	}
	return r.add(line)
}

// costs measures what is not time.
func (o options) costs(ctx context.Context, r *report) error {
	for _, m := range memoryCases {
		if !o.memory {
			break
		}
		line, err := o.memoryOf(ctx, m)
		if err != nil {
			return fmt.Errorf("memory of %d swaps with %d KiB: %w", m.Swaps, m.State>>10, err)
		}
		if err := r.add(line); err != nil {
			return err
		}
	}
	if o.steady == 0 {
		return nil
	}
	line, err := o.undisturbed(ctx)
	if err != nil {
		return fmt.Errorf("steady: %w", err)
	}
	return r.add(line)
}

// burn keeps one core busy until the process is killed.
func burn() {
	for n := uint64(1); ; n = n*6364136223846793005 + 1 {
		if n == 0 {
			fmt.Println() // never; keeps the loop from being removed
		}
	}
}
