// Package event says what happens in a director, as it happens: typed events, on a bus that keeps the newest ones.
//
// Whoever has to know of each event observes the bus and is called at once (metrics, the history of swaps). Everybody else
// subscribes, and reads at a pace of their own; who is too slow misses events, and is told how many.
package event

import (
	"encoding/json"
	"time"

	"github.com/connswap/connswap/shared/migration"
)

// Event is something that happened.
type Event struct {
	ID   uint64 // 1, 2, 3 … since the start of the process
	Time time.Time
	Body Body
}

// Kind is what an Event is about.
type Kind string

// Body is what there is to say of an event, by its kind.
type Body interface{ kind() Kind }

// Kind is that of the event's body.
func (e Event) Kind() Kind { return e.Body.kind() }

// Stream is the key of a stream.
type Stream struct {
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id"`
	Address      string `json:"-"` // of its client, for the log
}

// The bodies.
type (
	// StreamOpened says that a client has asked for a stream.
	StreamOpened struct {
		Stream
		Model string `json:"model,omitempty"`
	}
	// StreamPlaced says that a stream has its first worker, which has made its first token.
	StreamPlaced struct {
		Stream
		Worker string  `json:"worker"`
		Epoch  uint64  `json:"epoch"`
		WaitMS float64 `json:"wait_ms"` // since it was opened: the time to the first token
	}
	// StreamMoved says that another worker goes on with a stream.
	StreamMoved struct {
		Stream
		Worker     string  `json:"worker"`
		FromWorker string  `json:"from_worker"`
		Swap       string  `json:"swap"` // failover or planned
		Cause      string  `json:"cause"`
		Sequence   uint64  `json:"sequence"` // of its first token
		Epoch      uint64  `json:"epoch"`
		GapMS      float64 `json:"gap_ms"`
	}
	// StreamAway says that a stream's client is lost and may come back, StreamResumed that it has.
	StreamAway struct {
		Stream
		Reason   string `json:"reason"`
		Sequence uint64 `json:"sequence"` // of the last token by then
	}
	StreamResumed struct {
		Stream
		AwayMS   float64 `json:"away_ms"`
		Sequence uint64  `json:"sequence"`
	}
	// StreamFinished says how a stream ended.
	StreamFinished struct {
		Stream
		State  string `json:"state"`  // done, failed or cancelled
		Reason string `json:"reason"` // the finish reason, or the code of the error
		Tokens uint64 `json:"tokens"` // sequence of the last one
		Swaps  uint32 `json:"swaps"`
		Fenced uint64 `json:"fenced"` // chunks that were dropped, since their worker had lost the stream
	}
	// HandoverEntered says that a handover has entered a state, HandoverEnded that it is over.
	HandoverEntered struct {
		Stream
		Handover string `json:"handover"` // placement, failover or planned
		State    string `json:"state"`
	}
	HandoverEnded struct {
		Stream
		Record migration.Record `json:"record"`
	}
	// WorkerUp says that a worker can be given streams, WorkerLost that its link is lost, WorkerDraining that it is to be
	// emptied.
	WorkerUp struct {
		Worker string `json:"worker"`
	}
	WorkerLost struct {
		Worker string `json:"worker"`
		Cause  string `json:"cause"`
	}
	WorkerDraining struct {
		Worker string `json:"worker"`
		Reason string `json:"reason"`
	}
	// TokenRefused says that a migration token was refused.
	TokenRefused struct {
		Worker string `json:"worker,omitempty"` // that showed it, or was to
		Code   string `json:"code"`
	}
	// LimitHit says that a request was refused for want of something.
	LimitHit struct {
		ConnectionID string `json:"connection_id,omitempty"`
		Code         string `json:"code"`
		Message      string `json:"message"`
	}
	// Missed says that a subscriber was too slow for so many events.
	Missed struct {
		Events uint64 `json:"events"`
	}
)

func (StreamOpened) kind() Kind    { return "stream.opened" }
func (StreamPlaced) kind() Kind    { return "stream.placed" }
func (StreamMoved) kind() Kind     { return "stream.moved" }
func (StreamAway) kind() Kind      { return "stream.away" }
func (StreamResumed) kind() Kind   { return "stream.resumed" }
func (StreamFinished) kind() Kind  { return "stream.finished" }
func (HandoverEntered) kind() Kind { return "handover.entered" }
func (HandoverEnded) kind() Kind   { return "handover.ended" }
func (WorkerUp) kind() Kind        { return "worker.up" }
func (WorkerLost) kind() Kind      { return "worker.lost" }
func (WorkerDraining) kind() Kind  { return "worker.draining" }
func (TokenRefused) kind() Kind    { return "token.refused" }
func (LimitHit) kind() Kind        { return "limit.hit" }
func (Missed) kind() Kind          { return "events.missed" }

// Kinds lists all kinds.
var Kinds = func() (all []Kind) {
	for _, b := range []Body{
		StreamOpened{},
		StreamPlaced{},
		StreamMoved{},
		StreamAway{},
		StreamResumed{},
		StreamFinished{},
		HandoverEntered{},
		HandoverEnded{},
		WorkerUp{},
		WorkerLost{},
		WorkerDraining{},
		TokenRefused{},
		LimitHit{},
		Missed{},
	} {
		all = append(all, b.kind())
	}
	return all
}()

// MarshalJSON returns one object: id, time and kind, and the fields of the body.
func (e Event) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(struct {
		ID   uint64    `json:"id"`
		Time time.Time `json:"time"`
		Kind Kind      `json:"kind"`
	}{e.ID, e.Time, e.Kind()})
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(e.Body)
	if err != nil || len(body) <= len("{}") {
		return head, err
	}
	return append(append(head[:len(head)-1], ','), body[1:]...), nil
}
