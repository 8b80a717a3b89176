package session

import (
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
)

// Identity says whose stream it is.
type Identity struct {
	ID           uint64 // unique in this director, rising with age
	Connection   uint64 // number of the client's connection in this director
	ConnectionID string
	StreamID     uint64
}

// State is where a session stands, for people and programs.
type State string

// States. The last three are those of a session that has ended.
const (
	Streaming State = "streaming"
	Moving    State = "moving"  // from one worker to another
	Waiting   State = "waiting" // for a worker
	Done      State = "done"
	Failed    State = "failed"
	Cancelled State = "cancelled" // by its client, or with its connection
)

// States lists them all.
var States = []State{Streaming, Moving, Waiting, Done, Failed, Cancelled}

// Snapshot is a session as it is shown to people and programs.
type Snapshot struct {
	StreamID uint64     `json:"stream_id"`
	State    State      `json:"state"`
	Reason   string     `json:"reason,omitempty"` // why it ended
	Worker   string     `json:"worker"`
	Epoch    uint64     `json:"epoch"`    // of its worker, or of the one that it moves to
	Sequence uint64     `json:"sequence"` // last token accepted
	Sent     uint64     `json:"sent"`     // last token handed to the client's connection
	Swaps    uint32     `json:"swaps"`
	Fenced   uint64     `json:"fenced"` // tokens refused because their epoch was over
	Priority uint32     `json:"priority,omitempty"`
	Started  time.Time  `json:"started"`
	Ended    *time.Time `json:"ended,omitempty"`
}

// view is what others are shown of a session: the owner writes it, anybody reads it. What is in the log is read there.
type view struct {
	mu      sync.Mutex
	link    *link.Link // of the worker that the client was told last
	swaps   uint32
	waits   bool              // the client was told that there is no worker
	swap    *migration.Record // the handover under way, as it entered its state; nil if there is none, or it is a placement
	state   State             // in which it ended
	reason  string
	endedAt time.Time
}

// end says how the session ended; the first word counts.
func (v *view) end(state State, reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == "" {
		v.state, v.reason, v.endedAt = state, reason, time.Now()
	}
}

// serve says which worker serves the session now, after a handover of some kind.
func (v *view) serve(l *link.Link, kind migration.Kind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.link, v.waits = l, false
	if kind != migration.Placement {
		v.swaps++
	}
}

// wait says that the client was told that there is no worker.
func (v *view) wait() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waits = true
}

// moves shows where a handover stands.
func (v *view) moves(h *handover.Handover) {
	var shown *migration.Record
	if h.Kind() != migration.Placement && !h.Over() {
		r := h.Record()
		shown = &r
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.swap = shown
}

// worker returns the label of the worker that the client was told last.
func (v *view) worker() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.link == nil {
		return ""
	}
	return v.link.Worker()
}

func (v *view) fingerprint() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.link == nil {
		return ""
	}
	return v.link.Fingerprint()
}

func (v *view) swapped() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.swaps
}

// Snapshot may be called from any goroutine.
func (s *Session) Snapshot() Snapshot {
	log := s.record.Status()
	snapshot := Snapshot{
		StreamID: s.stream.StreamID, State: s.State(), Worker: s.view.worker(), Epoch: log.Highest, Sequence: log.Sequence, Sent: log.Taken,
		Fenced: log.Fenced, Priority: s.stream.Request.GetPriority(), Started: s.started,
	}
	if log.Epoch != 0 {
		snapshot.Epoch = log.Epoch
	}
	v := &s.view
	v.mu.Lock()
	defer v.mu.Unlock()
	snapshot.Swaps = v.swaps
	if v.state != "" {
		ended := v.endedAt
		snapshot.Reason, snapshot.Ended = v.reason, &ended
	}
	return snapshot
}

// State may be called from any goroutine.
func (s *Session) State() State {
	serving := s.record.Status().Epoch != 0
	v := &s.view
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.state != "":
		return v.state
	case serving:
		return Streaming
	case v.waits:
		return Waiting
	default:
		return Moving
	}
}

// Worker returns the label of the worker that serves the session, or empty while none does. It may be called from
// any goroutine.
func (s *Session) Worker() string {
	if s.record.Status().Epoch == 0 {
		return ""
	}
	return s.view.worker()
}

// Fingerprint returns that of the engine that the stream began with. It may be called from any goroutine.
func (s *Session) Fingerprint() string { return s.view.fingerprint() }

// Stateful reports whether an engine's state moves with the session. It may be called from any goroutine.
func (s *Session) Stateful() bool {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	return s.view.link != nil && s.view.link.Stateful()
}

// Swap returns the handover under way, or nil; a placement is none. It may be called from any goroutine.
func (s *Session) Swap() *migration.Record {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if s.view.swap == nil {
		return nil
	}
	r := *s.view.swap
	r.TotalMS = float64(time.Since(r.Started)) / float64(time.Millisecond)
	return &r
}

// Who says whose stream it is.
func (s *Session) Who() Identity {
	return Identity{ID: s.stream.ID, Connection: s.stream.Connection, ConnectionID: s.stream.ConnectionID, StreamID: s.stream.StreamID}
}
