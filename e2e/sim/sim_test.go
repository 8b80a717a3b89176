package sim

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/shared/simtest"
)

var (
	seeds = flag.Uint64("seeds", 20, "how many seeds to run, from 1")
	seed  = flag.Uint64("seed", 0, "run this seed alone, with its trace")
	shard = flag.String("shard", "0/1", "i/k: of the seeds, run those that leave the rest i when divided by k")
)

// TestSimulation runs one cluster for each seed, and checks what must always be true.
func TestSimulation(t *testing.T) {
	if *seed != 0 {
		simulate(t, *seed, t.Logf)
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
		if !t.Run(fmt.Sprint(s), func(t *testing.T) { simulate(t, s, nil) }) {
			failed++
		}
	}
}

func simulate(t *testing.T, seed uint64, trace func(string, ...any)) {
	simtest.Repeatable(t, seed)
	p := newPlan(seed)
	if trace != nil {
		trace("%v", p)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, seed, simtest.Options{Path: p.path, Silent: p.silent}, trace)
		defer c.close()
		for _, err := range p.run(c) {
			t.Error(err)
		}
		if trace != nil {
			trace("fingerprint %s", c.net.Fingerprint())
		}
		if t.Failed() {
			t.Errorf("repeat with its trace: make sim SEED=%d", seed)
		}
	})
}
