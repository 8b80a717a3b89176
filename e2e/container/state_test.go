package container

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/identity"
)

// The target of a large state loses its network in the middle of the transfer. The source goes on all the time, and when
// the target is back it gets the state after all.
func TestStateTransferCut(t *testing.T) {
	t.Parallel()
	const state, perSecond = 16 << 20, 4 << 20 // bytes; nothing in the state can be compressed
	c := up(t, setup{
		director: env{"DIRECTOR_CHECKPOINT_INTERVAL": "0"},
		workers: env{
			"WORKER_ENGINE": "stateful", "WORKER_STATE_BYTES": strconv.Itoa(state), "TRANSFER_RATE": strconv.Itoa(perSecond),
		},
	})
	all := c.crowd(t, 1, 1, request{prompt: "The archive", tokens: 2000, seed: 40, state: state})
	stream := all.members[0]
	connection, number := stream.id()
	source, target := "worker-a", "worker-b"
	if events, _, _ := stream.look(); events.worker() == target {
		source, target = target, source
	}

	cut := c.command(t, stream.on("swap")...)
	c.transfers(t, stream)
	c.cut(t, c.workers[target])
	_, last := cut.ends(t, 1)
	if last.State != "Aborted" || last.Reason == "" || !strings.Contains(last.Message, last.Reason) {
		t.Errorf("the target was cut off during the transfer: %+v", last)
	}
	c.workerIs(t, target, "is gone", func(w workerStatusLine) bool { return !w.Connected })
	all.reads(t, 20)
	if events, _, _ := stream.look(); events.worker() != source || len(events.of("swapped"))+len(events.of("waiting")) != 0 {
		t.Errorf("the stream did not stay on %s: %+v", source, events.of("swapped"))
	}
	c.heal(t, c.workers[target])
	c.serving(t, target)

	before := map[string]uint64{}
	for name := range c.workers {
		before[name] = c.workerStatus(t, name).MigrationTokens.Accepted
	}
	_, last = c.command(t, stream.on("swap", "--to", target)...).ends(t, 0)
	// What the bucket holds at first goes out at once.
	if least := 1000 * (state/perSecond - 1.0); last.State != "Completed" || last.StateMS["TransferringState"] < least {
		t.Errorf("want a transfer of %v ms at least: %+v", least, last)
	}
	for name := range c.workers { // the source one for the state, the target one for the stream
		if after := c.workerStatus(t, name).MigrationTokens; after.Accepted != before[name]+1 || len(after.Refused) > 0 {
			t.Errorf("%s had honoured %d migration tokens, and has now %+v", name, before[name], after)
		}
	}
	_, swaps, err := c.witness.swaps(t.Context(), connection, number)
	if err != nil || len(swaps) != 2 || swaps[0].State != "Aborted" {
		t.Errorf("the director has %+v (%v)", swaps, err)
	}
	all.hurry(t)
	events := all.survives(t)[0]
	onPurpose(t, events, requested, drained)
	if told := events.of("swapped"); len(told) == 0 || told[0].Sequence != last.Cut || slices.Contains(events.causes()[1:], requested) {
		t.Errorf("want one swap on request, at %d: %+v", last.Cut, told)
	}
}

// transfers waits until a stream's state is on its way, and some of it is there.
func (c *cluster) transfers(t *testing.T, m *member) {
	t.Helper()
	op := c.operator(t, identity.Operator)
	connection, _ := m.id()
	eventually(t, "the state is on its way", func() (bool, error) {
		status, err := op.Status(t.Context())
		if err != nil {
			return false, err
		}
		for _, s := range status.Swaps {
			if s.ConnectionID == connection && s.State == "TransferringState" && s.StateMS != nil && s.TotalMS > 1000 {
				return true, nil
			}
		}
		return false, nil
	})
}
