package container

import (
	"context"
	"net/netip"
	"testing"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
)

// A client that goes out of reach, for so long that both ends give its QUIC connection up, comes back with another
// address and reads on, exactly once, though the worker was killed meanwhile: one process, one connection id, one stream, the text of a run
// without faults. It says that another QUIC connection took over, and nothing is passed off as the first one.
func TestClientIsCutOff(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, request{prompt: "The road", tokens: 600, seed: 31})
	victim := cl.reads(t, 10)
	begun, _, err := cl.read()
	if err != nil {
		t.Fatal(err)
	}
	id, happens, before := begun[0].ConnectionID, c.happenings(t), c.address(t, cl.node)

	c.cut(t, cl.node)
	c.generate(t, request{prompt: "Another", tokens: 600, seed: 1}).reads(t, 1) // it has the address now, should that be given again
	happens.until(t, "stream.away", id)
	c.workers[victim].signal(t, "KILL")
	happens.until(t, "stream.moved", id)
	c.heal(t, cl.node)
	happens.until(t, "stream.resumed", id)
	if after := c.address(t, cl.node); after == before {
		t.Errorf("the client has its address %s again", after)
	}

	code := cl.exit(t)
	stdout, stderr, err := cl.node.output(t.Context())
	if err != nil || code != 0 || stderr != "" {
		t.Errorf("exit code %d, %v, and on stderr %q", code, err, stderr)
	}
	if state := cl.inspect(t); state.RestartCount != 0 || state.State.StartedAt != cl.started {
		t.Error("it is not the process that it was")
	}
	events, err := parse([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkClient(cl.request, events); err != nil {
		t.Error(err)
	}
	once(t, events, victim, tether, refused)
	resumed := events.of("resumed")
	if len(resumed) != 1 || resumed[0].Code != "connection_lost" || resumed[0].ODCID == events[0].ODCID || resumed[0].Exporter == events[0].Exporter {
		t.Errorf("connected %+v, resumed %+v", events[0], resumed)
	}
}

// address is where a node is on the cluster's network.
func (c *cluster) address(t *testing.T, n *node) (addr netip.Addr) {
	t.Helper()
	for _, on := range n.inspect(t).NetworkSettings.Networks {
		addr = on.IPAddress
	}
	return addr
}

// happenings are what the director says that happens.
type happenings <-chan operator.Event

// happenings follows the events of a director from now on.
func (c *cluster) happenings(t *testing.T) happenings {
	t.Helper()
	op := c.operator(t, identity.Operator)
	events := make(chan operator.Event, 1<<10)
	c.run.Go(func() {
		err := op.Events(c.ctx, operator.EventFilter{}, func(e operator.Event) { events <- e })
		if c.ctx.Err() == nil {
			t.Errorf("following events: %v", err)
		}
		close(events)
	})
	return events
}

// until waits for an event of a kind that is about a connection.
func (h happenings) until(t *testing.T, kind, connection string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	for {
		select {
		case e, more := <-h:
			if !more {
				t.Fatalf("events end, want %s", kind)
			}
			if e.Kind == kind && e.ConnectionID == connection {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no %s for %v", kind, waitTimeout)
		}
	}
}
