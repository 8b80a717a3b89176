// Package session is one generate call of one client: its journal, the epoch that may write to it, and the
// swaps that move it from worker to worker.
package session

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
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
}

// Deps is what a session needs from outside.
type Deps struct {
	Pool  *pool.Pool
	Clock *lived.Clock
	Log   *zap.Logger
	Swaps func(migration.Record) // called once for each swap that is over
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
// tokens. Tokens pass through the methods of pool.Sink on the links' goroutines, under mu, which is never
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
	link      *pool.Link      // that the wish was granted; nil until then
	homeless  time.Duration   // lived time at which the session was left without a worker
	told      bool            // the client knows that it waits
	entered   time.Duration   // lived time at which the swap entered its state
	patience  time.Duration   // factor on the token deadline, doubled each time that it was missed
	deaths    int             // workers in a row that died before progress
	attemptAt uint64          // length of the journal when the attempt began
	recent    []time.Time     // swaps of the last minute
	over      bool            // the last frame is queued, or nobody wants it

	writers sync.WaitGroup // writeSlowly, at most one

	mu   sync.Mutex
	flow flow
}

// flow is what the links' goroutines and the owner share, guarded by Session.mu.
type flow struct {
	journal     *session.Journal
	worker      string       // that the client was told last
	link        *pool.Link   // of the epoch below
	fingerprint string       // of the engine that the stream began with
	wish        *pool.Waiter // the newest; the owner follows
	highest     uint64       // epoch ever given out
	epoch       uint64       // of the attempt that may write; 0 while fenced
	pending     uint64       // of the attempt that is being verified; its tokens are held
	begun       bool         // the pending attempt has begun
	held        [][]byte
	fenced      uint64
	heard       uint64 // epoch of which the last word (End, Fail, Refused) is in the inbox
	swaps       uint32
	closed      bool // nothing more is wanted from any worker

	client clientLeg
	pace   pace
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

// Snapshot is a session as it is shown to people and programs.
type Snapshot struct {
	StreamID uint64    `json:"stream_id"`
	State    string    `json:"state"` // streaming, or moving from one worker to another
	Worker   string    `json:"worker"`
	Epoch    uint64    `json:"epoch"`    // of its worker, or of the one that it moves to
	Sequence uint64    `json:"sequence"` // last token accepted
	Sent     uint64    `json:"sent"`     // last token handed to the client's connection
	Swaps    uint32    `json:"swaps"`
	Fenced   uint64    `json:"fenced"` // tokens refused because their epoch was over
	Started  time.Time `json:"started"`
}

// Snapshot may be called from any goroutine.
func (s *Session) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flow
	state := "streaming"
	if f.epoch == 0 {
		state = "moving"
	}
	return Snapshot{
		StreamID: s.who.StreamID, State: state, Worker: f.worker, Epoch: f.highest, Sequence: f.journal.Len(),
		Sent: f.client.sent, Swaps: f.swaps, Fenced: f.fenced, Started: s.started,
	}
}
