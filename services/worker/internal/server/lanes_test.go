package server

import (
	"fmt"
	"testing"

	"github.com/connswap/connswap/shared/wire"
)

// All sessions of a connection go by one stream, and the streams get as many sessions as each other.
func TestLanes(t *testing.T) {
	streams := []*queue{newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil), newQueue(wire.MaxBacklog, nil)}
	l := newLanes(streams)
	const connections, each = 100, 10
	of := make(map[string]*queue)
	on := make(map[*queue]int)
	for i := range connections * each {
		connection := fmt.Sprintf("conn-%d", i%connections)
		stream := l.take(connection)
		if of[connection] == nil {
			of[connection] = stream
		}
		if of[connection] != stream {
			t.Fatalf("%s goes by two streams", connection)
		}
		on[stream]++
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
	if l.take("small") == l.streams[l.of["large"].stream] {
		t.Error("the newcomer is not where fewest are")
	}
}
