package link

import (
	"fmt"
	"testing"

	"github.com/connswap/connswap/shared/wire"
)

// All sessions of a connection share a lane, and the streams get as many sessions as each other.
func TestLanes(t *testing.T) {
	streams := []*queue{newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil)}
	l := newLanes(streams)
	const connections, each = 100, 10
	of := make(map[string]*lane)
	on := make(map[*queue]int)
	for i := range connections * each {
		connection := fmt.Sprintf("conn-%d", i%connections)
		lane := l.take(connection)
		if of[connection] == nil {
			of[connection] = lane
		}
		if of[connection] != lane {
			t.Fatalf("%s goes by two lanes", connection)
		}
		on[lane.queue]++
	}
	for _, stream := range streams {
		if on[stream] != connections*each/len(streams) {
			t.Errorf("%d sessions on one of %d streams, want as many as on each other", on[stream], len(streams))
		}
	}
	for i := range connections * each {
		l.release(fmt.Sprintf("conn-%d", i%connections))
	}
	if len(l.of) > 0 || fmt.Sprint(l.load) != "[0 0 0 0]" {
		t.Errorf("left: %v, %v", l.of, l.load)
	}

	l.take("large")
	l.take("large")
	if l.take("small").queue == l.of["large"].queue {
		t.Error("the newcomer is not where fewest are")
	}
}
