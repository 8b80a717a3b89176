package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// plan is one run, as its seed chose it.
type plan struct {
	seed     uint64
	path     simtest.Path
	silent   bool // closed ports drop instead of refusing
	engine   string
	interval time.Duration // between tokens
	window   int
	capacity int
	swaps    int // at once
	workers  int
	clients  []clientPlan
	faults   []fault
	absences []absence

	// What operators do, in every second run.
	actions     []action
	confirm     bool // planned swaps wait for an operator, who now and then vetoes one
	state       int  // bytes, of the stateful engine
	checkpoints time.Duration
	atPeer      bool
}

// action is something that an operator does at a time.
type action struct {
	at     time.Duration
	kind   actionKind
	worker int           // that it is about
	client int           // for a swap: whose stream
	stream uint64        // which
	length time.Duration // of a drain, until the worker is put back into use
}

type actionKind int

const (
	swapOne     actionKind = iota // moves a stream to a worker
	drain                         // empties a worker, and puts it back into use later
	rebalance                     // evens out
	roll                          // stops a worker in good order, and starts it again
	actionKinds                   // how many there are
)

func (k actionKind) String() string {
	return [...]string{"swap", "drain", "rebalance", "roll"}[k]
}

func (a action) String() string {
	return fmt.Sprintf("%v: %v worker-%d (client-%d, stream %d, for %v)", a.at, a.kind, a.worker, a.client, a.stream, a.length)
}

// clientPlan is one client and its streams.
type clientPlan struct {
	streams []streamPlan
}

// streamPlan is one generate call.
type streamPlan struct {
	start  time.Duration
	prompt string
	seed   uint64
	tokens int
	pause  time.Duration // the reader sleeps this long after each token
	stall  time.Duration // and once, in the middle, this long
	cancel int           // after so many tokens; 0 never
}

// fault is something that goes wrong at a time, and is mended later. Every fault is mended: what is expected of
// a run is that all its streams complete.
type fault struct {
	at, mend time.Duration
	kind     faultKind
	worker   int
	both     bool // for cuts: both directions
}

type faultKind int

const (
	kill       faultKind = iota // the process dies; a new one starts
	crash                       // the machine dies without a word; a new one starts
	freeze                      // the process stops, and wakes up later
	cutTo                       // director → worker, or both
	cutFrom                     // worker → director
	lossyPath                   // the path loses a third of its packets
	killAll                     // all workers die at once
	fail                        // the worker's own simulated failure
	faultKinds                  // how many there are
)

func (k faultKind) String() string {
	return [...]string{"kill", "crash", "freeze", "cut to", "cut from", "lossy", "kill all", "fail"}[k]
}

func (f fault) String() string {
	both := ""
	if f.both {
		both = " both ways"
	}
	return fmt.Sprintf("%v until %v: %v%s worker-%d", f.at, f.mend, f.kind, both, f.worker)
}

// absence is a time in which a client cannot be reached, or a change of its network. It comes back.
type absence struct {
	at, mend time.Duration
	kind     absenceKind
	client   int
}

type absenceKind int

const (
	cutOff       absenceKind = iota // nothing gets through, in either direction
	cutToClient                     // nothing gets to the client
	cutOfClient                     // nothing comes from it
	asleep                          // its machine sleeps
	rebound                         // a NAT gives it another address, now and at the end
	absenceKinds                    // how many there are
)

func (k absenceKind) String() string {
	return [...]string{"cut off", "cut to", "cut from", "asleep", "rebound"}[k]
}

func (a absence) String() string {
	return fmt.Sprintf("%v until %v: %v client-%d", a.at, a.mend, a.kind, a.client)
}

func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d workers of %d (%s, a token each %v), window %d, %d swaps at once, path %v, silent %v\n",
		p.seed, p.workers, p.capacity, p.engine, p.interval, p.window, p.swaps, p.path, p.silent)
	for i, c := range p.clients {
		fmt.Fprintf(&b, "  client-%d: %+v\n", i, c.streams)
	}
	for _, f := range p.faults {
		fmt.Fprintf(&b, "  %v\n", f)
	}
	for _, a := range p.absences {
		fmt.Fprintf(&b, "  %v\n", a)
	}
	for _, a := range p.actions {
		fmt.Fprintf(&b, "  %v\n", a)
	}
	if len(p.actions) > 0 {
		fmt.Fprintf(&b, "  operator confirms %v, state of %d bytes, checkpoints each %v at a peer %v\n",
			p.confirm, p.state, p.checkpoints, p.atPeer)
	}
	return b.String()
}

// failureMode is the simulated failure that worker n of a run is configured with.
func (p plan) failureMode(n int) string {
	return []string{"error", "hang", "drop", "slow", "exit"}[(p.seed+uint64(n))%5]
}

// newPlan lets the seed choose.
func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 0x636f6e6e73776170))
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
	p := plan{
		seed:     seed,
		silent:   r.IntN(3) == 0,
		engine:   []string{"markov", "counter"}[r.IntN(2)],
		interval: []time.Duration{0, 2, 10, 20, 50}[r.IntN(5)] * time.Millisecond,
		window:   []int{1, 4, 16, 256}[r.IntN(4)],
		capacity: []int{4, 8, 1000}[r.IntN(3)],
		swaps:    []int{1, 2, 256}[r.IntN(3)],
		workers:  2 + r.IntN(3),
	}
	p.path = simtest.Path{Delay: 100*time.Microsecond + upTo(10*time.Millisecond)}
	if r.IntN(2) == 0 {
		p.path.Jitter = upTo(5 * time.Millisecond)
		p.path.Loss = r.Float64() * 0.05
		p.path.Reorder = r.Float64() * 0.1
		p.path.Duplicate = r.Float64() * 0.05
	}
	for range 1 + r.IntN(2) {
		var c clientPlan
		for range 1 + r.IntN(4) {
			s := streamPlan{
				start: upTo(300 * time.Millisecond), prompt: fmt.Sprint("The keeper of tale ", r.IntN(100)),
				seed: r.Uint64() >> 1, tokens: 1 + r.IntN(120),
			}
			switch r.IntN(8) {
			case 0:
				s.pause = upTo(30 * time.Millisecond)
			case 1:
				s.stall = upTo(5 * time.Second)
			case 2:
				s.cancel = 1 + r.IntN(s.tokens)
			case 3:
				if p.interval == 0 && p.window >= 16 { // enough to fill what the client's connection takes unread
					s.tokens, s.stall = 9000, time.Second+upTo(5*time.Second)
				}
			}
			c.streams = append(c.streams, s)
		}
		p.clients = append(p.clients, c)
	}
	for range r.IntN(5) {
		f := fault{
			at: 50*time.Millisecond + upTo(2*time.Second), kind: faultKind(r.IntN(int(faultKinds))),
			worker: r.IntN(p.workers), both: r.IntN(2) == 0,
		}
		f.mend = f.at + 50*time.Millisecond + upTo(3*time.Second)
		p.faults = append(p.faults, f)
	}
	if n := seed % 4; n == 1 || n == 2 { // so that two processes that deal the seeds out have the same work
		p.plan(r, upTo)
	}
	if seed%3 == 0 {
		p.leave(r, upTo)
	}
	return p
}

// leave has clients go away, for a moment or for longer than anybody takes for one.
func (p *plan) leave(r *rand.Rand, upTo func(time.Duration) time.Duration) {
	for range 1 + r.IntN(3) {
		a := absence{
			at: 50*time.Millisecond + upTo(3*time.Second), kind: absenceKind(r.IntN(int(absenceKinds))),
			client: r.IntN(len(p.clients)),
		}
		a.mend = a.at + 50*time.Millisecond + upTo([]time.Duration{3 * time.Second, 25 * time.Second}[r.IntN(2)])
		p.absences = append(p.absences, a)
	}
}

// leaves reports whether the client of a number goes away.
func (p plan) leaves(client int) bool {
	return slices.ContainsFunc(p.absences, func(a absence) bool { return a.client == client })
}

// plan adds what operators do.
func (p *plan) plan(r *rand.Rand, upTo func(time.Duration) time.Duration) {
	for range 2 + r.IntN(8) {
		p.actions = append(p.actions, action{
			at: 50*time.Millisecond + upTo(1500*time.Millisecond), kind: actionKind(r.IntN(int(actionKinds))), worker: r.IntN(p.workers),
			client: r.IntN(len(p.clients)), stream: uint64(1 + r.IntN(4)), length: upTo(3 * time.Second),
		})
	}
	p.confirm, p.atPeer = r.IntN(6) == 0, r.IntN(2) == 0
	p.checkpoints = []time.Duration{0, 50 * time.Millisecond, 700 * time.Millisecond}[r.IntN(3)]
	if r.IntN(2) == 0 {
		p.engine, p.state = "stateful", 1<<10+r.IntN(600<<10)
	}
}

// configure applies the plan to a worker.
func (p plan) configure(cfg *config.Worker) {
	cfg.Engine, cfg.TokenInterval, cfg.Capacity, cfg.DrainTimeout = p.engine, p.interval, p.capacity, 5*time.Second
	if p.state > 0 {
		cfg.StateBytes = p.state
	}
}
