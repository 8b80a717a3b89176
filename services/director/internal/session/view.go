package session

import (
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Identity says whose stream it is.
type Identity struct {
	ID           uint64 // unique in this director, rising with age
	Connection   uint64 // number of the client's connection in this director
	ConnectionID string
	StreamID     uint64
	Address      string // of the client
	Holder       string // who the client is where places are divided; empty for nobody in particular
	Resumable    bool   // the client says what it has read, and may come back after it was lost
	Kept         bool   // whoever opened the stream keeps its log: nobody has to acknowledge what was delivered
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
	StreamID   uint64      `json:"stream_id"`
	State      State       `json:"state"`
	Reason     string      `json:"reason,omitempty"` // why it ended
	Model      string      `json:"model,omitempty"`  // of which name; empty while none was asked for and none serves
	Worker     string      `json:"worker"`
	Standby    string      `json:"standby,omitempty"`    // worker that makes the text, too, and goes on at once where the other is lost
	Epoch      uint64      `json:"epoch"`                // of its worker, or of the one that it moves to
	Sequence   uint64      `json:"sequence"`             // last token accepted
	Sent       uint64      `json:"sent"`                 // last token handed to the client's connection
	Continuity string      `json:"continuity,omitempty"` // what its worker promises: none, text, verified or exact; empty before there is one
	Swaps      uint32      `json:"swaps"`
	Fenced     uint64      `json:"fenced"`               // tokens refused because their epoch was over
	Resumes    uint32      `json:"resumes,omitempty"`    // how often the client came back
	Recovering *Recovering `json:"recovering,omitempty"` // the next worker's engine, before it begins
	Away       *time.Time  `json:"away,omitempty"`       // since when the client is lost, and may come back
	Priority   uint32      `json:"priority,omitempty"`
	Started    time.Time   `json:"started"`
	Ended      *time.Time  `json:"ended,omitempty"`
}

// View is what others are shown of a session: the owner writes it, anybody reads it. What is in the log is read there.
type View struct {
	who      Identity
	priority uint32
	started  time.Time
	log      *stream.Log

	mu       sync.Mutex
	model    routing.Model  // that was asked for, of which only the name is known; then the one that serves
	pledge   attempt.Pledge // of the worker that serves
	standby  string         // label of the worker that runs along
	resumed  uint32         // weakest class in which another worker went on
	swaps    uint32
	resumes  uint32
	recovery *Recovering
	away     time.Time         // since when the client is lost; zero while it is there
	waits    bool              // the client was told that there is no worker
	swap     *migration.Record // the handover under way, as it entered its state; nil for none, and for a placement
	prompt   uint64            // tokens, as an engine said before its end; 0 where none did
	usage    *wirepb.Usage     // as the engine said at the end; nil before that, and where it says nothing
	state    State             // in which it ended
	reason   string
	endedAt  time.Time
}

// end says how the session ended. The first word counts; end reports whether this was it.
func (v *View) end(state State, reason string) (first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state != "" {
		return false
	}
	v.state, v.reason, v.endedAt = state, reason, time.Now()
	return true
}

// prompted says what an engine says the prompt took.
func (v *View) prompted(tokens uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prompt = max(v.prompt, tokens)
}

// took says what the stream took, as its engine says; nil where that says nothing.
func (v *View) took(u *wirepb.Usage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.usage = u
}

// Usage returns what the stream has taken so far, in tokens: as its engine says at the end, else as many as its chunks stand for.
// The prompt's are 0 until an engine has said them.
func (v *View) Usage() (prompt, completion uint64) {
	v.mu.Lock()
	prompt, u := v.prompt, v.usage
	v.mu.Unlock()
	if u != nil {
		return u.GetPromptTokens(), u.GetCompletionTokens()
	}
	return prompt, v.log.Weight()
}

// serve says which model of a worker serves the session now, and what it promises, after a handover of some kind.
func (v *View) serve(m routing.Model, pledge attempt.Pledge, kind migration.Kind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.model, v.pledge, v.waits = m, pledge, false
	if kind != migration.Placement {
		v.swaps++
		v.resumed = min(v.resumed, pledge.Resumed)
	}
}

// wait says that the client was told that there is no worker.
func (v *View) wait() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waits = true
}

// recovers says how far the next worker is.
func (v *View) recovers(r *Recovering) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.recovery = r
}

// leave says that the client is lost, and may come back.
func (v *View) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = time.Now()
}

// back says that the client is there again, and returns for how long it was lost; 0 if nobody had noticed.
func (v *View) back() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.resumes++
	if v.away.IsZero() {
		return 0
	}
	away := time.Since(v.away)
	v.away = time.Time{}
	return away
}

// moves shows where a handover stands. Placements are not shown: nothing moves.
func (v *View) moves(h *handover.Handover) {
	var shown *migration.Record
	if h.Kind != migration.Placement && !h.Over() {
		r := h.Record()
		shown = &r
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.swap = shown
	if h.Over() || h.Target == nil {
		v.recovery = nil
	}
}

// announced returns the label of the worker that the client was told last.
func (v *View) announced() string { return v.log.Status().Worker }

// swapped returns how often the client was told of another worker.
func (v *View) swapped() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.swaps
}

// stands says which worker runs along; empty for none.
func (v *View) stands(worker string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.standby = worker
}

// continuity returns the weakest class in which another worker went on; exact where none did.
func (v *View) continuity() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.resumed
}

// Snapshot returns all of it at one moment. Any goroutine may call it, and the other exported methods of a View.
func (v *View) Snapshot() Snapshot {
	log := v.log.Status()
	snapshot := Snapshot{
		StreamID: v.who.StreamID, State: v.State(), Worker: log.Worker, Epoch: log.Highest,
		Sequence: log.Sequence, Sent: log.Taken, Fenced: log.Fenced, Priority: v.priority, Started: v.started,
	}
	if log.Epoch != 0 {
		snapshot.Epoch = log.Epoch
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	snapshot.Model = v.model.Name
	if v.model.Fingerprint != "" {
		snapshot.Continuity = wire.Continuity(v.pledge.Continuity)
	}
	snapshot.Standby = v.standby
	snapshot.Swaps, snapshot.Resumes, snapshot.Recovering = v.swaps, v.resumes, v.recovery
	if away := v.away; !away.IsZero() && v.state == "" {
		snapshot.Away = &away
	}
	if v.state != "" {
		ended := v.endedAt
		snapshot.Reason, snapshot.Ended = v.reason, &ended
	}
	return snapshot
}

// State returns where the session stands.
func (v *View) State() State {
	serving := v.log.Status().Epoch != 0
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

// Worker returns the label of the worker that serves the session, or empty while none does.
func (v *View) Worker() string {
	if log := v.log.Status(); log.Epoch != 0 {
		return log.Worker
	}
	return ""
}

// Need is what the session needs of any worker: the model that was asked for, or that it got, and from its first worker on
// the fingerprint of that.
func (v *View) Need() routing.Need {
	v.mu.Lock()
	defer v.mu.Unlock()
	return routing.Need{Model: v.model.Name, Fingerprint: v.model.Fingerprint, Portable: v.pledge.Portable}
}

// Stateful reports whether an engine's state moves with the session.
func (v *View) Stateful() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.model.Stateful
}

// named says by name which model the stream is to have.
func (v *View) named(model string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.model.Name = model
}

// Swap returns the handover under way, or nil; a placement is none.
func (v *View) Swap() *migration.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.swap == nil {
		return nil
	}
	r := *v.swap
	r.TotalMS = float64(time.Since(r.Started)) / float64(time.Millisecond)
	return &r
}

// key is how the stream is called everywhere.
func (v *View) key() event.Stream {
	return event.Stream{ConnectionID: v.who.ConnectionID, StreamID: v.who.StreamID, Address: v.who.Address}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Who says whose stream it is.
func (v *View) Who() Identity { return v.who }
