package worker

import "testing"

// TestSeedOfEachWorker has workers with one seed fail at times of their own, and at the same ones when they start again.
func TestSeedOfEachWorker(t *testing.T) {
	if seedOf(0, "a") != 0 {
		t.Error("0 asks for another seed at each start")
	}
	seen := map[uint64]string{}
	for _, label := range []string{"a", "b", "worker-a", "worker-b", "worker-c"} {
		for _, seed := range []uint64{1, 2, 1<<64 - 1} {
			got := seedOf(seed, label)
			if other, ok := seen[got]; ok || got == 0 || got != seedOf(seed, label) {
				t.Errorf("%s with seed %d has %d, like %s", label, seed, got, other)
			}
			seen[got] = label
		}
	}
}
