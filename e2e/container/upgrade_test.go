package container

import (
	"strconv"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

// otherVersion is what the builds claim that play another release.
const otherVersion = wire.NewestPeerVersion + 1

// A worker is replaced by a new container after the other, once drained by an operator and once just stopped, while 20
// streams are read: all of them move on purpose, whatever is old and new.
func TestUpgradedWorkers(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	all := c.crowd(t, 2, 10, request{prompt: "The harbour", tokens: 2000, seed: 80})
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
	swap("worker-a", "worker-b")
	c.replace(t, "worker-b")
	c.speaks(t, "worker-b")
	swap("worker-a", "worker-b")
	swap("worker-b", "worker-a")
	c.command(t, "drain", "worker-a").ends(t, 0)
	c.replace(t, "worker-a")
	c.command(t, "undrain", "worker-a").ends(t, 0)
	c.speaks(t, "worker-a")
	swap("worker-b", "worker-a")
	swap("worker-a", "worker-b")
	all.hurry(t)
	for _, events := range all.survives(t) {
		told := events.of("swapped")
		if len(told) == 0 {
			t.Error("a stream stayed where it was, though both workers were replaced")
		}
		for _, e := range told {
			if e.Kind != planned {
				t.Errorf("that was not planned: %+v", e)
			}
		}
	}
}

// speaks checks what the director shows of a worker's program.
func (c *cluster) speaks(t *testing.T, name string) {
	t.Helper()
	c.workerIs(t, name, "speaks version "+strconv.Itoa(wire.NewestPeerVersion), func(w workerStatusLine) bool {
		return w.Connected && w.Version == wire.NewestPeerVersion && w.Build != "other"
	})
}

// A worker and a director of another release are refused, and say which versions there are. The others go on.
func TestOtherVersionsAreRefused(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, request{prompt: "The road", tokens: 150, seed: 60})
	newer, err := c.start(t.Context(), c.worker("worker-c", otherWorker))
	if err != nil {
		t.Fatal(err)
	}
	says := func(n *node, what string) {
		t.Helper()
		eventually(t, n.name+" says "+what, func() (bool, error) {
			_, stderr, err := n.output(t.Context())
			return strings.Contains(stderr, what), err
		})
	}
	refusal := "worker speaks version " + strconv.Itoa(otherVersion) + ", this director " + strconv.Itoa(wire.NewestPeerVersion)
	says(newer, refusal)
	says(c.director, refusal)
	if said := c.register(t, identity.Worker, otherVersion, otherVersion+1); !strings.Contains(said, "to "+strconv.Itoa(otherVersion+1)+", this director") {
		t.Errorf("registering a worker that does not know the director's version: %s", said)
	}
	for _, w := range c.status(t).Workers {
		if w.Worker == "worker-c" {
			t.Errorf("%+v is registered", w)
		}
	}
	director, err := c.start(t.Context(), spec{image: otherDirector, name: "director-2", ports: []string{directorStatus, directorMgmt}, env: env{
		"LOG_FORMAT": "json", "DIRECTOR_ID": "director-2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other director refuses, and names both versions", func() (bool, error) {
		said := c.registerAt(t, director, identity.Worker, wire.OldestPeerVersion, wire.NewestPeerVersion)
		return strings.Contains(said, "worker speaks version "+strconv.Itoa(wire.NewestPeerVersion)+", this director "+strconv.Itoa(otherVersion)), nil
	})
	c.survives(t, cl)
}
