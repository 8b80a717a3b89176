package container

import (
	"slices"
	"testing"
)

// gapLimit is what a planned swap may add to the time between two tokens, in milliseconds.
const gapLimit = 250

// onPurpose checks that all swaps of a stream were planned, for one of the causes.
func onPurpose(t *testing.T, events transcript, causes ...string) {
	t.Helper()
	for _, e := range events.of("swapped") {
		if e.Kind != planned || !slices.Contains(causes, e.Cause) {
			t.Errorf("not a planned swap because of %q: %+v", causes, e)
		}
	}
}

// unnoticed checks that no reader had to wait for a swap.
func unnoticed(t *testing.T, events transcript) {
	t.Helper()
	for _, e := range events.of("swapped") {
		if e.GapMS-e.IntervalMS > gapLimit {
			t.Errorf("a gap of %.0f ms, where %.0f ms are usual: %+v", e.GapMS, e.IntervalMS, e)
		}
	}
}

// The operator's own restart is the commonest of all ends of a worker. A hundred streams notice nothing of six of them.
// This test has the machine for itself, because it measures.
func TestStoppedWorkers(t *testing.T) {
	const rounds = 3
	c := up(t, setup{workers: env{"WORKER_TOKEN_INTERVAL": "100ms"}})
	all := c.crowd(t, 4, 25, request{prompt: "Long ago", tokens: 240, seed: 100})
	for range rounds {
		for _, name := range []string{"worker-a", "worker-b"} {
			all.reads(t, 3)
			c.restart(t, name)
		}
	}
	all.running(t)
	moved := map[string]int{}
	for _, events := range all.survives(t) {
		onPurpose(t, events, shutdown)
		unnoticed(t, events)
		for _, e := range events.of("swapped") {
			moved[e.FromWorker]++
		}
	}
	// Half of them are on the first worker; from then on all are on the one that is stopped next.
	if a, b := moved["worker-a"], moved["worker-b"]; a != 50+(rounds-1)*100 || b != rounds*100 {
		t.Errorf("streams moved: %v", moved)
	}
}

// A worker that was asked to stop and has nowhere to send its stream waits, but not if it is asked again. The stream
// waits for the next worker.
func TestStoppedTwice(t *testing.T) {
	t.Parallel()
	c := up(t, setup{workers: env{"WORKER_DRAIN_TIMEOUT": "1h"}})
	c.workers["worker-b"].stop(t)
	c.workerIs(t, "worker-b", "is gone", func(w workerStatusLine) bool { return !w.Connected })
	all := c.crowd(t, 1, 1, request{prompt: "At the end", tokens: 200, seed: 50})
	last := c.workers["worker-a"]
	last.signal(t, "TERM")
	c.workerIs(t, "worker-a", "takes nothing more", func(w workerStatusLine) bool { return w.Connected && !w.Available })
	all.reads(t, 20)
	if !last.inspect(t).State.Running {
		t.Error("worker-a has left its stream alone")
	}
	last.signal(t, "TERM")
	if code := last.exit(t); code == 0 {
		t.Error("exit code 0, though a stream was lost")
	}
	last.start(t)
	c.serving(t, "worker-a")
	all.running(t)
	once(t, all.survives(t)[0], "worker-a", tether, refused)
}
