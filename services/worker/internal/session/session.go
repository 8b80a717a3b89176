// Package session is a worker's work on streams: a Session makes the chunks of one, and the Table has all of them.
//
// A session knows no link. It puts its chunks into an Outlet, keeps a copy of those that its client has not acknowledged, and
// makes no more than it has credit for. The goroutine that the owner gives it runs the engine, or sleeps while a batch does; Stop,
// Credit, Order, Capture and Serve are for whoever hears of the director.
package session

import (
	"context"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// States gets the state of an engine from where a director says that it is.
type States interface {
	Fetch(ctx context.Context, m *wirepb.Fetch) (*transfer.Snapshot, error)
}

// Start is what a session begins with.
type Start struct {
	*wirepb.Attach
	Director string // its id, for people
	Peer     string // where it is, for a log that leaves out what comes often
	States   States
	Log      *zap.Logger
}

// Session makes the chunks of one stream in one epoch. The goroutine of run owns it, or its batch while that makes its chunks,
// except where a field says otherwise.
type Session struct {
	table      *Table
	key        Key
	id         uint64 // what the director calls it
	director   string
	peer       string
	epoch      uint64
	request    engine.Request
	model      *Model // set by the table before run
	states     States
	prefix     *wirepb.Prefix // until the engine has it
	checkpoint *wirepb.Fetch  // where the engine's state is; nil if nowhere
	standby    bool           // nothing is generated before Pivot
	log        *zap.Logger

	digest *session.Rolling // over prefix and chunks so far
	tokens int              // that these stand for
	made   atomic.Uint64    // sequence of the last chunk; written by the owner only

	credit atomic.Uint64 // highest sequence that may be sent; written by whoever calls Credit
	raised chan struct{} // capacity 1: credit was raised
	served chan struct{} // capacity 1: there is an outlet again

	cancel context.CancelFunc

	turn     chan struct{} // capacity 1: full while the engine of capturer works
	position uint64        // chunks that capturer has made; whoever has the turn may use it

	out atomic.Pointer[outlet] // nil while nobody carries the session; mu is held to change it

	mu       sync.Mutex
	backlog  backlog
	acked    uint64          // up to here the client has read for good
	bytes    int             // that it has of the table's
	over     bool            // nothing more is put out, and the place is given back
	capturer engine.Capturer // once it generates; nil if it has no state to capture
	captures uint64          // number of the newest request for that
	orders   chan any        // Feed, Fetch and Pivot; nil unless it stands by
}

// sessionBytes is what a session costs beside its prompt and chunks: goroutine, buffers, and what is on its way.
const sessionBytes = 16 << 10

// Start takes a place for a session, which is served by out from its prefix on, and returns it with what makes its chunks: the
// caller runs that, and it returns when the text is complete, the session cannot go on, it is stopped, or ctx ends. Or it
// says why the worker does not take it.
func (t *Table) Start(ctx context.Context, start Start, out Outlet) (s *Session, run func(), refusal *wire.Error) {
	s = newSession(t, start)
	s.out.Store(newOutlet(out))
	ctx, s.cancel = context.WithCancel(ctx)
	if refusal := t.add(s); refusal != nil {
		s.cancel()
		return nil, nil, refusal
	}
	return s, func() { s.run(ctx) }, nil
}

func newSession(t *Table, start Start) *Session {
	m := start.Attach
	s := &Session{
		table:      t,
		key:        Key{m.GetConnectionId(), m.GetStreamId()},
		id:         m.GetSession(),
		director:   start.Director,
		peer:       start.Peer,
		epoch:      m.GetEpoch(),
		states:     start.States,
		prefix:     m.GetPrefix(),
		checkpoint: m.GetCheckpoint(),
		standby:    m.GetStandby(),
		bytes:      sessionBytes + len(m.GetRequest().GetPrompt()) + len(m.GetRequest().GetBody()) + session.PackOf(m.GetPrefix()).Size(),
		raised:     make(chan struct{}, 1),
		served:     make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		request:    requestOf(m),
	}
	if s.standby {
		s.orders = make(chan any, maxOrders)
	}
	s.credit.Store(m.GetCredit())
	s.log = start.Log.With(zap.String("connection.id", s.key.ConnectionID), zap.Uint64("stream.id", s.key.StreamID),
		zap.Uint64("session", s.id), zap.Uint64("epoch", s.epoch))
	return s
}

// requestOf returns a request as an engine gets it.
func requestOf(m *wirepb.Attach) engine.Request {
	r, role := m.GetRequest(), engine.Serving
	switch {
	case m.GetStandby() && m.GetAlong():
		role = engine.RunningAlong
	case m.GetStandby():
		role = engine.StandingBy
	}
	return engine.Request{
		Model: r.GetModel(), Prompt: r.GetPrompt(), Body: r.GetBody(), API: r.GetApi(), Trace: r.GetTrace(), MaxTokens: int(r.GetMaxTokens()), Stop: r.GetStop(),
		Choices: int(max(1, r.GetChoices())), Seed: r.GetSeed(), Continuity: engine.Continuity(min(r.GetContinuity(), uint32(engine.Exact))),
		Priority: uint8(min(r.GetPriority(), 255)), Fingerprint: m.GetFingerprint(), Tries: int(m.GetTries()), Role: role,
	}
}

// few has the log leave out what comes often from this director.
func (s *Session) few() zap.Field { return telemetry.From(s.peer) }

// grow counts what the session holds more, or returns why it may not.
func (s *Session) grow(bytes int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	if refusal := s.table.grow(bytes); refusal != nil {
		return refusal
	}
	s.bytes += bytes
	return nil
}

// Stop ends the session. When it returns nothing more of it is put out, and its place is free; its goroutine may still be on
// its way out.
func (s *Session) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		s.table.remove(s, s.bytes)
	}
	s.detach()
	s.cancel()
}

// Status returns what the session is doing.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		ID: s.id, Epoch: s.epoch, ConnectionID: s.key.ConnectionID, StreamID: s.key.StreamID,
		Sequence: s.made.Load(), Credit: s.credit.Load(), Director: s.director, Acknowledged: s.acked, KeptBytes: s.backlog.bytes,
	}
}
