package sim

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/simtest"
)

var (
	seeds = flag.Uint64("seeds", 20, "how many seeds to run, from 1")
	seed  = flag.Uint64("seed", 0, "run this seed alone, with its trace")
	shard = flag.String("shard", "0/1", "i/k: of the seeds, run those that leave the rest i when divided by k")
)

// TestSimulation runs one cluster for each seed, and checks what must always be true.
func TestSimulation(t *testing.T) {
	seen := tally{}
	if *seed != 0 {
		simulate(t, *seed, t.Logf, seen)
		return
	}
	var rest, of uint64
	if _, err := fmt.Sscanf(*shard, "%d/%d", &rest, &of); err != nil || of == 0 || rest >= of {
		t.Fatalf("-shard=%s: want i/k with i < k", *shard)
	}
	failed := 0
	for s := uint64(1); s <= *seeds && failed < 10; s++ {
		if s%of != rest {
			continue
		}
		if !t.Run(fmt.Sprint(s), func(t *testing.T) { simulate(t, s, nil, seen) }) {
			failed++
		}
	}
	fmt.Println("sim:", seen)
	seen.check(t, *seeds/of)
}

// tally counts what became of the swaps of all runs: a run in which nothing happens proves nothing.
type tally map[string]int

func (n tally) add(swaps []migration.Record) {
	for _, s := range swaps {
		n[s.Kind+" "+s.State]++
	}
}

func (n tally) String() string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprintf("%s %d", what, n[what]))
	}
	return strings.Join(all, ", ")
}

// check fails if runs of that many seeds have missed something that they should have had plenty of.
func (n tally) check(t *testing.T, runs uint64) {
	for what, each := range map[string]uint64{ // in so many runs one at least
		"failover Completed": 5, "failover Failed": 50, "planned Completed": 5, "planned Aborted": 20, "planned Failed": 100,
		"resumed": 10, "over HTTP": 2, "resumed over HTTP": 50,
	} {
		if runs >= 10*each && uint64(n[what]) < runs/each {
			t.Errorf("%d were %s in %d runs, want one in %d runs at least", n[what], what, runs, each)
		}
	}
}

func simulate(t *testing.T, seed uint64, trace func(string, ...any), seen tally) {
	simtest.Repeatable(t, seed)
	p := newPlan(seed)
	if trace != nil {
		trace("%v", p)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, seed, simtest.Options{Path: p.path, Silent: p.silent}, trace)
		defer c.close()
		c.strict = true
		for _, err := range p.run(c) {
			t.Error(err)
		}
		var over struct{ Swaps []migration.Record }
		if err := c.status("/v1/swaps", &over); err != nil {
			t.Error(err)
		}
		seen.add(over.Swaps)
		seen["resumed"] += int(c.resumed.Load())
		seen["over HTTP"] += int(c.overHTTP.Load())
		seen["resumed over HTTP"] += int(c.again.Load())
		if trace != nil {
			trace("fingerprint %s", c.net.Fingerprint())
		}
		if t.Failed() {
			t.Errorf("repeat with its trace: make sim SEED=%d", seed)
		}
	})
}
