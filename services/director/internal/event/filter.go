package event

import "slices"

// Filter says which events are wanted: those that all of it is true for. The zero value is for all.
type Filter struct {
	Kinds        []string // empty for all
	ConnectionID string   // empty for all
	StreamID     uint64   // 0 for all
	Worker       string   // that the event is about, or that a stream comes from; empty for all
}

// Wants reports whether an event is wanted. A Missed always is.
func (f Filter) Wants(e Event) bool {
	if _, ok := e.Body.(Missed); ok {
		return true
	}
	connection, stream := about(e.Body)
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, string(e.Kind()))) &&
		(f.ConnectionID == "" || f.ConnectionID == connection) && (f.StreamID == 0 || f.StreamID == stream) &&
		(f.Worker == "" || slices.Contains(workers(e.Body), f.Worker))
}

// about returns which stream an event is about; empty for none.
func about(b Body) (connection string, stream uint64) {
	switch b := b.(type) {
	case interface{ of() Stream }:
		s := b.of()
		return s.ConnectionID, s.StreamID
	case LimitHit:
		return b.ConnectionID, 0
	}
	return "", 0
}

func (s Stream) of() Stream { return s }

// workers returns which workers an event is about.
func workers(b Body) []string {
	switch b := b.(type) {
	case StreamPlaced:
		return []string{b.Worker}
	case StreamMoved:
		return []string{b.Worker, b.FromWorker}
	case HandoverEnded:
		return []string{b.Record.From, b.Record.To}
	case WorkerUp:
		return []string{b.Worker}
	case WorkerLost:
		return []string{b.Worker}
	case WorkerDraining:
		return []string{b.Worker}
	case TokenRefused:
		return []string{b.Worker}
	}
	return nil
}
