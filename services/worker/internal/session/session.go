// Package session is a worker's work on streams: a Session makes the chunks of one, and the Table has all of them.
//
// A session knows no link. It puts its chunks into an Outlet, keeps a copy of those that its client has not acknowledged, and
// makes no more than it has credit for. The goroutine that the owner gives it runs the engine; Stop, Credit, Order, Capture
// and Serve are for whoever hears of the director.
package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

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

// Session makes the chunks of one stream in one epoch. The goroutine of run owns it, except where a field says otherwise.
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
	made   atomic.Uint64    // sequence of the last chunk; written by run only

	credit atomic.Uint64 // highest sequence that may be sent; written by whoever calls Credit
	raised chan struct{} // capacity 1: credit was raised
	served chan struct{} // capacity 1: there is an outlet again

	cancel context.CancelFunc

	turn     chan struct{} // capacity 1: full while the engine of capturer works
	position uint64        // chunks that capturer has made; whoever has the turn may use it

	mu       sync.Mutex
	out      *outlet // nil while nobody carries the session
	backlog  backlog
	acked    uint64          // up to here the client has read for good
	bytes    int             // that it has of the table's
	over     bool            // nothing more is put out, and the place is given back
	capturer engine.Capturer // once it generates; nil if it has no state to capture
	captures uint64          // number of the newest request for that
	orders   chan any        // Feed, Fetch and Pivot; nil unless it stands by
}

// outlet is an Outlet for as long as it is the session's.
type outlet struct {
	Outlet
	taken context.Context // ends with that
	leave context.CancelFunc
}

// sessionBytes is what a session costs beside its prompt and chunks: goroutine, buffers, and what is on its way.
const sessionBytes = 16 << 10

// Start takes a place for a session, which is served by out from its prefix on, and returns it with what makes its chunks: the
// caller runs that, and it returns when the text is complete, the session cannot go on, it is stopped, or ctx ends. Or it
// says why the worker does not take it.
func (t *Table) Start(ctx context.Context, start Start, out Outlet) (s *Session, run func(), refusal *wire.Error) {
	s = newSession(t, start)
	s.out = newOutlet(out)
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
		request:    requestOf(m.GetRequest()),
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
func requestOf(r *wirepb.Request) engine.Request {
	return engine.Request{
		Model: r.GetModel(), Prompt: r.GetPrompt(), Body: r.GetBody(), MaxTokens: int(r.GetMaxTokens()), Stop: r.GetStop(),
		Choices: int(max(1, r.GetChoices())), Seed: r.GetSeed(), Continuity: engine.Continuity(min(r.GetContinuity(), uint32(engine.Exact))),
		Priority: uint8(min(r.GetPriority(), 255)),
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

func newOutlet(out Outlet) *outlet {
	o := &outlet{Outlet: out}
	o.taken, o.leave = context.WithCancel(context.Background())
	return o
}

// detach takes the outlet away. s.mu is held.
func (s *Session) detach() {
	if s.out != nil {
		s.out.leave()
		s.out = nil
	}
}

// Serve has another outlet carry the session from the chunk after a sequence on: that puts out what is there at once. An error
// says that these chunks are not kept any more, or that there are none yet.
func (s *Session) Serve(out Outlet, after uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return wire.Errorf(wire.CodeStaleEpoch, "the session has ended here")
	}
	switch kept := &s.backlog; {
	case after > kept.last():
		return wire.Errorf(wire.CodeResumeAhead, "chunk %d is the last one here, wanted is what follows %d", kept.last(), after)
	case !kept.since(after, func(wire.Chunk) {}):
		return wire.Errorf(wire.CodeResumeBehind, "chunk %d is the first one that is kept, wanted is what follows %d", kept.after+1, after)
	}
	s.detach()
	s.backlog.since(after, out.PutChunk)
	s.out = newOutlet(out)
	select {
	case s.served <- struct{}{}:
	default:
	}
	return nil
}

// Leave takes the session's outlet away, if it is out: the session goes on without one, as far as it has credit.
func (s *Session) Leave(out Outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != nil && s.out.Outlet == out {
		s.detach()
	}
}

// run generates until the text is complete, the session cannot go on, or it is stopped.
func (s *Session) run(ctx context.Context) {
	defer s.Stop()
	prefix, digest, refusal := readPrefix(s.prefix)
	if refusal != nil {
		s.end(ctx, Refused{refusal})
		return
	}
	s.prefix, s.digest = nil, digest
	s.made.Store(uint64(len(prefix)))
	err := s.generate(ctx, prefix)
	if ctx.Err() == nil { // else it was stopped
		s.finish(ctx, err)
	}
}

// generate returns the engine's Finish, or what went wrong.
func (s *Session) generate(ctx context.Context, prefix []engine.Chunk) (err error) {
	defer func() {
		if p := recover(); p != nil { // an engine's defect ends one session, not the worker
			s.log.Error("engine panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()), s.few())
			err = fmt.Errorf("engine panicked: %v", p)
		}
	}()
	g, err := s.open(ctx, prefix)
	if err != nil {
		return err
	}
	defer func() {
		failed := s.close(g)
		if _, over := engine.Finished(err); over && failed != nil {
			err = nil // it is not complete
		}
		err = cmp.Or(err, failed)
	}()
	if err := s.begin(); err != nil {
		return err
	}
	for {
		if !s.full() { // else the engine has nothing but a finish
			if err := s.mayGo(ctx); err != nil {
				return err
			}
		}
		chunk, err := s.next(ctx, g)
		if err != nil {
			return err
		}
		if err := s.put(chunk); err != nil {
			return err
		}
	}
}

// open returns the generation that goes on after prefix, or, for a standby, after what it was brought until its pivot.
func (s *Session) open(ctx context.Context, prefix []engine.Chunk) (g engine.Generation, err error) {
	f := &follower{Session: s, chunks: prefix}
	defer func() {
		if g == nil && f.generation != nil { // also where the engine panics
			err = errors.Join(err, f.generation.Close())
		}
	}()
	if s.standby {
		err = f.standBy(ctx)
	} else {
		err = f.takeOver(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.position, s.tokens = s.made.Load(), engine.Count(f.chunks)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backlog.after = s.made.Load() // what was there before is no work of this session
	s.orders = nil                  // what a standby is told now comes too late
	s.capturer, _ = f.generation.(engine.Capturer)
	return f.generation, nil
}

// close ends the generation. Nobody captures its state any more.
func (s *Session) close(g engine.Generation) error {
	s.mu.Lock()
	s.capturer = nil
	s.mu.Unlock()
	s.turn <- struct{}{} // whoever captures now has the turn for one copy
	defer func() { <-s.turn }()
	return g.Close()
}

// next returns the next chunk. While the engine works its state is not captured.
func (s *Session) next(ctx context.Context, g engine.Generation) (engine.Chunk, error) {
	if s.capturer == nil { // written by this goroutine only
		return g.Next(ctx)
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	chunk, err := g.Next(ctx)
	if err == nil {
		s.position++
	}
	return chunk, err
}

func (s *Session) begin() error {
	s.log.Info("session attached", zap.Uint64("sequence", s.made.Load()))
	return s.tell(Begun{Next: s.made.Load() + 1, Digest: s.digest.Digest()})
}

// most is how many tokens all choices may have; 0 for as many as there are.
func (s *Session) most() int { return s.request.MaxTokens * s.request.Choices }

// full reports whether there are as many tokens as were asked for.
func (s *Session) full() bool { return s.most() > 0 && s.tokens >= s.most() }

// mayGo waits until there is credit for the next token, and room for it in what waits for the director.
func (s *Session) mayGo(ctx context.Context) error {
	for s.credit.Load() <= s.made.Load() {
		select {
		case <-s.raised:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s.room(ctx)
}

// room waits until the outlet takes a chunk. One that is taken away keeps nobody waiting.
func (s *Session) room(ctx context.Context) error {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	if out == nil || out.Room(out.taken) == nil {
		return context.Cause(ctx)
	}
	if ctx.Err() == nil {
		return s.room(ctx)
	}
	return context.Cause(ctx)
}

// Credit lets the session make chunks up to a sequence, and forget those that its client has acknowledged. What it knows
// already, and what never was, is ignored.
func (s *Session) Credit(sequence, acknowledged uint64) {
	s.acknowledge(acknowledged)
	s.grant(sequence)
}

func (s *Session) acknowledge(sequence uint64) {
	if sequence == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence = min(sequence, s.backlog.last()); sequence > s.acked {
		s.acked = sequence
		s.backlog.forget(sequence)
	}
}

// grant raises the credit.
func (s *Session) grant(sequence uint64) {
	if sequence <= s.credit.Load() {
		return
	}
	s.credit.Store(sequence)
	select {
	case s.raised <- struct{}{}:
	default:
	}
}

func (s *Session) put(made engine.Chunk) error {
	if err := made.Check(); err != nil {
		return fmt.Errorf("the engine made %w", err)
	}
	s.tokens += made.Count()
	switch most := s.most(); {
	case made.Choice >= s.request.Choices:
		return fmt.Errorf("the engine made a chunk of choice %d, asked for were %d", made.Choice, s.request.Choices)
	case most > 0 && s.tokens > most:
		return fmt.Errorf("the engine made %d tokens, asked for were %d", s.tokens, most)
	}
	chunk := toWire(made)
	chunk.Sequence = s.made.Load() + 1
	if err := s.putChunk(chunk); err != nil {
		return err
	}
	s.digest.Add(chunk)
	s.made.Store(chunk.Sequence)
	s.table.chunks.Add(1)
	return nil
}

// putChunk keeps a chunk and puts it out, unless the session was stopped: from then on nothing of it leaves.
func (s *Session) putChunk(chunk wire.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	s.backlog.add(chunk)
	if s.out != nil {
		s.out.PutChunk(chunk)
	}
	return nil
}

// tell is putChunk for a note.
func (s *Session) tell(n Note) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	if s.out != nil {
		s.out.Tell(n)
	}
	return nil
}

// progressEvery is how often at most a director is told how far an engine is.
const progressEvery = 100 * time.Millisecond

// progress returns what tells the director how far the engine is before it begins. It never blocks.
func (s *Session) progress() engine.Progress {
	var last atomic.Int64 // when the director was told, in nanoseconds since start
	start := time.Now()
	return func(at, of int) {
		now, before := int64(time.Since(start)), last.Load()
		if now < before+int64(progressEvery) || !last.CompareAndSwap(before, now) {
			return
		}
		_ = s.tell(Recovering{At: uint64(max(0, at)), Of: uint64(max(0, at, of))}) // who was stopped has no progress
	}
}

// finish puts out how the generation ended: in a Finish, or it failed.
func (s *Session) finish(ctx context.Context, err error) {
	log := s.log.With(zap.Uint64("sequence", s.made.Load()))
	if f, ok := engine.Finished(err); ok {
		if s.end(ctx, Ended{Finish: f, Chunks: s.made.Load(), Digest: s.digest.Digest()}) {
			log.Info("session completed", zap.String("reason", f.Reason))
		}
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the engine's text ended without a finish")
	}
	if s.end(ctx, Failed{wire.AsError(err, wire.CodeEngine)}) {
		log.Warn("session failed", zap.Error(err))
	}
}

// end gives the place back and puts out the last note, once there is somebody to take it, unless the session was stopped. In
// this order: the director may fill the place at once.
func (s *Session) end(ctx context.Context, last Note) bool {
	for {
		if done, ended := s.tryEnd(last); done {
			return ended
		}
		select {
		case <-s.served:
		case <-ctx.Done():
			return false
		}
	}
}

// tryEnd is end, but for the waiting.
func (s *Session) tryEnd(last Note) (done, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return true, false
	case s.out == nil:
		return false, false
	}
	s.over = true
	s.table.remove(s, s.bytes)
	s.out.Tell(last)
	s.detach()
	return true, true
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
