package director

import (
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/services/director/internal/session"
)

// load is what there is at present, for the metrics.
func (d *Director) load() metrics.Load {
	counts := d.sessions.Count()
	load := metrics.Load{
		Streams: map[string]int{}, Connections: d.native.Known() + d.openai.Streams(), Paths: metrics.Paths(d.fleet.Paths()),
		Workers: map[string]int{"ready": 0, "draining": 0, "unavailable": 0, "unconnected": 0},
	}
	for _, state := range []session.State{session.Streaming, session.Moving, session.Waiting} {
		load.Streams[string(state)] = counts[state]
	}
	for _, used := range d.keys.Usage() {
		load.Keys = append(load.Keys, metrics.Key(used))
	}
	for _, w := range d.fleet.Workers() {
		load.Workers[stateOf(w)]++
	}
	return load
}

func stateOf(w fleet.Snapshot) string {
	switch {
	case !w.Connected:
		return "unconnected"
	case w.Draining:
		return "draining"
	case w.Available:
		return "ready"
	}
	return "unavailable"
}
