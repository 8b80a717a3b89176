package container

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/identity"
)

// A worker of the release before is told of no drain, and says that it fails. Workers of this one get its streams.
func TestUpgradedWorkers(t *testing.T) {
	t.Parallel()
	c := up(t, setup{directorImage: previousDirector, workerImage: previousWorker})
	all := c.crowd(t, 2, 10, request{prompt: "The road", tokens: 350, seed: 60})
	if said := c.register(t, identity.Worker, 2, 3); !strings.Contains(said, "version 2 to 3, this director 1") {
		t.Errorf("registering a worker that does not know the director's version: %s", said)
	}
	for _, name := range []string{"worker-a", "worker-b"} {
		c.speaks(t, name, 1, "previous")
		c.replace(t, name, workerImage)
		c.speaks(t, name, 1, "dev")
		all.reads(t, 3)
	}
	c.restart(t, "worker-a") // a worker of this release knows what the director of the one before does not
	all.running(t)
	for _, events := range all.survives(t) {
		told := events.of("swapped")
		if len(told) == 0 || slices.ContainsFunc(told, func(e event) bool { return e.Kind != failover || e.Cause != reported }) {
			t.Errorf("swaps: %+v", told)
		}
	}
}

// speaks checks what the director shows of a worker's program.
func (c *cluster) speaks(t *testing.T, name string, version uint32, build string) {
	t.Helper()
	c.workerIs(t, name, "speaks version "+strconv.Itoa(int(version)), func(w workerStatusLine) bool {
		return w.Connected && w.Version == version && w.Build == build
	})
}

// The director is upgraded first, and its workers one after the other: streams are moved on purpose from the first
// moment, whatever release either end is of.
func TestUpgradedDirector(t *testing.T) {
	t.Parallel()
	c := up(t, setup{workerImage: previousWorker})
	all := c.crowd(t, 2, 10, request{prompt: "The harbour", tokens: 400, seed: 80})
	swap := func(from, to string) {
		t.Helper()
		m := all.at(t, from)
		connection, stream := m.id()
		record, err := c.operator(t, identity.Operator).Swap(t.Context(), connection, stream, to)
		if err != nil || record.State != "Completed" || record.From != from || record.To != to || record.Kind != planned {
			t.Errorf("%+v, %v", record, err)
		}
		m.until(t, "is on "+to, func(events transcript) bool { return events.worker() == to })
	}
	c.speaks(t, "worker-a", 1, "previous")
	c.speaks(t, "worker-b", 1, "previous")
	swap("worker-a", "worker-b")
	c.replace(t, "worker-b", workerImage)
	c.speaks(t, "worker-b", 2, "dev")
	swap("worker-a", "worker-b")
	swap("worker-b", "worker-a")
	c.command(t, "drain", "worker-a").ends(t, 0)
	c.replace(t, "worker-a", workerImage)
	c.command(t, "undrain", "worker-a").ends(t, 0)
	c.speaks(t, "worker-a", 2, "dev")
	swap("worker-b", "worker-a")
	swap("worker-a", "worker-b")
	all.running(t)
	for _, events := range all.survives(t) {
		for _, e := range events.of("swapped") {
			if e.Kind == failover && (e.Cause != reported || e.FromWorker != "worker-b") {
				t.Errorf("only the stop of the first worker is none that was planned: %+v", e)
			}
		}
	}
}
