// Package session is one generate call of one client: its journal, the epoch that may write to it, and the
// swaps that move it from worker to worker.
package session

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config bounds what a session may cost and how long it waits.
type Config struct {
	MaxBytes          int // of text, of the whole stream
	Window            int // tokens that a worker may send ahead of what the client took
	WorkerWait        time.Duration
	ClientStall       time.Duration
	AttachTimeout     time.Duration
	FirstTokenTimeout time.Duration
	TokenTimeoutMin   time.Duration
	TokenFactor       float64
	MaxSwapsPerMinute int
	MaxWorkerDeaths   int

	ConfirmTimeout     time.Duration // for an operator to confirm a planned swap
	TransferTimeout    time.Duration // of an engine's state
	CheckpointInterval time.Duration // between checkpoints of an engine's state; 0 for none
	CheckpointAtPeer   bool          // kept by another worker, not by this director
}

// Deps is what a session needs from outside.
type Deps struct {
	Pool  *pool.Pool
	Clock *clock.StallProof
	Log   *zap.Logger
	Swaps func(migration.Record) // called once for each swap that is over

	Tokens      *token.Issuer
	Checkpoints Checkpoints
	Turns       *Turns // of checkpoints
}

// Stream is the client's stream, as far as a session uses it. *quic.Stream is one.
type Stream interface {
	TryWriteAll(p []byte) error
	Write(p []byte) (int, error)
	CancelWrite(code quic.StreamErrorCode)
	Close() error
	Context() context.Context
}

// Identity says whose stream it is.
type Identity struct {
	ID           uint64 // unique in this director, rising with age
	Connection   uint64 // number of the client's connection in this director
	ConnectionID string
	StreamID     uint64
}

// Session is one stream. Run is its owner: it alone decides what happens next, and it sees events, never
// tokens. Tokens pass through the methods of link.Sink on the links' goroutines, under mu, which is never
// held across anything that blocks.
type Session struct {
	who     Identity
	cfg     Config
	deps    Deps
	log     *zap.Logger
	request *wirepb.Request
	started time.Time
	inbox   inbox

	// Owned by Run.
	swap      *migration.Swap // under way, or nil
	wish      *pool.Waiter    // the attempt that the session has, or wants
	link      *link.Link      // that the wish was granted; nil until then
	homeless  time.Duration   // time, by the stall-proof clock, at which the session was left without a worker
	told      bool            // the client knows that it waits
	entered   time.Duration   // time, by the stall-proof clock, at which the swap entered its state
	patience  time.Duration   // factor on the token deadline, doubled each time that it was missed
	deaths    int             // workers in a row that died before progress
	attemptAt uint64          // length of the journal when the attempt began
	recent    []time.Time     // swaps of the last minute
	over      bool            // the last frame is queued, or nobody wants it
	plan      *plan           // a planned swap before its cut, or nil
	source    attempt         // that a planned swap leaves, between its cut and its end
	planned   func(migration.Record)
	last      time.Time // when the token before the cut came
	keep      checkpoint

	writers sync.WaitGroup // writeSlowly, at most one

	mu   sync.Mutex
	flow flow
}

// flow is what the links' goroutines and the owner share, guarded by Session.mu.
type flow struct {
	journal     *session.Journal
	worker      string       // that the client was told last
	link        *link.Link   // of the epoch below
	fingerprint string       // of the engine that the stream began with
	wish        *pool.Waiter // the newest for the session's own worker; the owner follows
	plan        *pool.Waiter // for the target of a planned swap before its cut, or nil
	armed       bool         // the owner waits for the next token, to cut after it
	highest     uint64       // epoch ever given out
	epoch       uint64       // of the attempt that may write; 0 while fenced
	pending     uint64       // of the attempt that is being verified; its tokens are held
	begun       bool         // the pending attempt has begun
	held        [][]byte
	fenced      uint64
	heard       uint64           // epoch of which the last word (End, Fail, Refused) is in the inbox
	planHeard   uint64           // the same for plan
	prepared    *wirepb.Prepared // the newest, unless the owner has seen it
	captured    *wirepb.Captured // likewise
	swaps       uint32
	closed      bool              // nothing more is wanted from any worker
	waiting     bool              // the client was told that there is no worker
	moving      *migration.Record // the swap under way, as it entered its state, for people; nil if there is none
	end         End

	client clientLeg
	pace   pace
}

// attempt is a place at a worker.
type attempt struct {
	wish *pool.Waiter
	link *link.Link
}

// New returns a session that has not begun. Run begins it.
func New(who Identity, request *wirepb.Request, stream Stream, cfg Config, deps Deps) *Session {
	s := &Session{
		who: who, cfg: cfg, deps: deps, request: request, started: time.Now(), inbox: newInbox(), patience: 1,
		log: deps.Log.With(zap.String("connection.id", who.ConnectionID), zap.Uint64("stream.id", who.StreamID)),
	}
	s.flow.journal = session.NewJournal(cfg.MaxBytes)
	s.flow.client = clientLeg{stream: stream}
	return s
}

// Connection tells the sessions of different clients apart.
func (s *Session) Connection() uint64 { return s.who.Connection }

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

// End is how a session ended.
type End struct {
	State  State
	Reason string
	At     time.Time
}

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

// Snapshot may be called from any goroutine.
func (s *Session) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	snapshot := Snapshot{
		StreamID: s.who.StreamID, State: s.state(), Reason: f.end.Reason, Worker: f.worker, Epoch: f.highest,
		Sequence: f.journal.Len(), Sent: f.client.sent, Swaps: f.swaps, Fenced: f.fenced,
		Priority: s.request.GetPriority(), Started: s.started,
	}
	if f.epoch != 0 {
		snapshot.Epoch = f.epoch
	}
	if f.end.State != "" {
		snapshot.Ended = &f.end.At
	}
	return snapshot
}

// state is called with s.mu held.
func (s *Session) state() State {
	switch f := &s.flow; {
	case f.end.State != "":
		return f.end.State
	case f.epoch != 0:
		return Streaming
	case f.waiting:
		return Waiting
	default:
		return Moving
	}
}

// State may be called from any goroutine.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state()
}

// Worker returns the label of the worker that serves the session, or empty while none does. It may be called from
// any goroutine.
func (s *Session) Worker() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flow.epoch == 0 {
		return ""
	}
	return s.flow.worker
}

// Fingerprint returns that of the engine that the stream began with. It may be called from any goroutine.
func (s *Session) Fingerprint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flow.fingerprint
}

// Stateful reports whether an engine's state moves with the session. It may be called from any goroutine.
func (s *Session) Stateful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flow.link != nil && s.flow.link.Stateful()
}

// Swap returns the swap under way, or nil; a placement is none. It may be called from any goroutine.
func (s *Session) Swap() *migration.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flow.moving == nil {
		return nil
	}
	r := *s.flow.moving
	r.TotalMS = float64(time.Since(r.Started)) / float64(time.Millisecond)
	return &r
}

// publish shows people where a swap stands.
func (s *Session) publish(swap *migration.Swap) {
	var shown *migration.Record
	if swap.Kind != migration.Placement && !swap.State().Final() {
		r := s.record(swap)
		shown = &r
	}
	s.mu.Lock()
	s.flow.moving = shown
	s.mu.Unlock()
}

// Who says whose stream it is.
func (s *Session) Who() Identity { return s.who }

// ends notes how the session ended; the first word counts.
func (s *Session) ends(state State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flow.end.State == "" {
		s.flow.end = End{State: state, Reason: reason, At: time.Now()}
	}
}
