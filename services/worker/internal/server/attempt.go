package server

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
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// attempt serves one session in one epoch. The goroutine of run owns it, except where a field says otherwise.
type attempt struct {
	link       *link
	session    uint64
	epoch      uint64
	connection string
	stream     uint64
	request    engine.Request
	model      *Model         // set before run
	prefix     *wirepb.Prefix // until the engine has it
	checkpoint *wirepb.Fetch  // where the engine's state is; nil if nowhere
	standby    bool           // nothing is generated before Pivot
	log        *zap.Logger

	digest *session.Rolling // over prefix and chunks so far
	tokens int              // that these stand for
	made   atomic.Uint64    // sequence of the last token; written by run only

	credit atomic.Uint64 // highest sequence that may be sent; written by the control stream's reader
	raised chan struct{} // capacity 1: credit was raised

	out    *lane // of a token stream, that of its connection; set before run, as is cancel
	cancel context.CancelFunc

	turn     chan struct{} // capacity 1: full while the engine of capturer works
	position uint64        // tokens that capturer has made; whoever has the turn may use it

	mu       sync.Mutex
	bytes    int             // that it has of the server's
	over     bool            // nothing more is put out, and the place is given back
	capturer engine.Capturer // once it generates; nil if it has no state to capture
	captures uint64          // number of the newest request for that
	orders   chan any        // Feed, Fetch and Pivot; nil unless it stands by
}

func newAttempt(l *link, m *wirepb.Attach) *attempt {
	a := &attempt{
		link:       l,
		session:    m.GetSession(),
		epoch:      m.GetEpoch(),
		connection: m.GetConnectionId(),
		stream:     m.GetStreamId(),
		prefix:     m.GetPrefix(),
		checkpoint: m.GetCheckpoint(),
		standby:    m.GetStandby(),
		bytes:      sessionBytes + len(m.GetRequest().GetPrompt()) + len(m.GetRequest().GetBody()) + session.PackOf(m.GetPrefix()).Size(),
		raised:     make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		request:    requestOf(m.GetRequest()),
	}
	if a.standby {
		a.orders = make(chan any, maxOrders)
	}
	a.credit.Store(m.GetCredit())
	a.log = l.log.With(zap.String("connection.id", a.connection), zap.Uint64("stream.id", a.stream),
		zap.Uint64("session", a.session), zap.Uint64("epoch", a.epoch))
	return a
}

// sessionBytes is what a session costs beside its prompt and tokens: goroutine, buffers, and what is on its way.
const sessionBytes = 16 << 10

// requestOf returns a request as an engine gets it.
func requestOf(r *wirepb.Request) engine.Request {
	return engine.Request{
		Model: r.GetModel(), Prompt: r.GetPrompt(), Body: r.GetBody(), MaxTokens: int(r.GetMaxTokens()), Stop: r.GetStop(),
		Choices: int(max(1, r.GetChoices())), Seed: r.GetSeed(), Continuity: engine.Continuity(min(r.GetContinuity(), uint32(engine.Exact))),
		Priority: uint8(min(r.GetPriority(), 255)),
	}
}

// grow counts what the attempt holds more, or returns why it may not.
func (a *attempt) grow(bytes int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return context.Canceled
	}
	if refusal := a.link.server.grow(bytes); refusal != nil {
		return refusal
	}
	a.bytes += bytes
	return nil
}

// run generates until the text is complete, the attempt cannot go on, or it is stopped.
func (a *attempt) run(ctx context.Context) {
	defer a.stop()
	prefix, digest, refusal := readPrefix(a.prefix)
	if refusal != nil {
		a.leave(func() { a.link.refuse(a.session, a.epoch, refusal) })
		return
	}
	a.prefix, a.digest = nil, digest
	a.made.Store(uint64(len(prefix)))
	err := a.generate(ctx, prefix)
	if ctx.Err() == nil { // else it was stopped, or the link is gone
		a.finish(err)
	}
}

// generate returns the engine's Finish, or what went wrong.
func (a *attempt) generate(ctx context.Context, prefix []engine.Chunk) (err error) {
	defer func() {
		if p := recover(); p != nil { // an engine's defect ends one session, not the worker
			a.log.Error("engine panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()), a.link.few())
			err = fmt.Errorf("engine panicked: %v", p)
		}
	}()
	g, err := a.open(ctx, prefix)
	if err != nil {
		return err
	}
	defer func() {
		failed := a.close(g)
		if _, over := engine.Finished(err); over && failed != nil {
			err = nil // it is not complete
		}
		err = cmp.Or(err, failed)
	}()
	if err := a.begin(); err != nil {
		return err
	}
	for {
		if !a.full() { // else the engine has nothing but a finish
			if err := a.mayGo(ctx); err != nil {
				return err
			}
		}
		chunk, err := a.next(ctx, g)
		if err != nil {
			return err
		}
		if err := a.put(chunk); err != nil {
			return err
		}
	}
}

// open returns the generation that goes on after prefix, or, for a standby, after what it was brought until its pivot.
func (a *attempt) open(ctx context.Context, prefix []engine.Chunk) (g engine.Generation, err error) {
	f := &follower{attempt: a, chunks: prefix}
	defer func() {
		if g == nil && f.generation != nil { // also where the engine panics
			err = errors.Join(err, f.generation.Close())
		}
	}()
	if a.standby {
		err = f.standBy(ctx)
	} else {
		err = f.takeOver(ctx)
	}
	if err != nil {
		return nil, err
	}
	a.position, a.tokens = a.made.Load(), engine.Count(f.chunks)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.orders = nil // what a standby is told now comes too late
	a.capturer, _ = f.generation.(engine.Capturer)
	return f.generation, nil
}

// close ends the generation. Nobody captures its state any more.
func (a *attempt) close(g engine.Generation) error {
	a.mu.Lock()
	a.capturer = nil
	a.mu.Unlock()
	a.turn <- struct{}{} // whoever captures now has the turn for one copy
	defer func() { <-a.turn }()
	return g.Close()
}

// next returns the next chunk. While the engine works its state is not captured.
func (a *attempt) next(ctx context.Context, g engine.Generation) (engine.Chunk, error) {
	if a.capturer == nil { // written by this goroutine only
		return g.Next(ctx)
	}
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	chunk, err := g.Next(ctx)
	if err == nil {
		a.position++
	}
	return chunk, err
}

func (a *attempt) begin() error {
	a.log.Info("session attached", zap.Uint64("sequence", a.made.Load()))
	digest := a.digest.Digest()
	begin := &wirepb.Begin{Session: a.session, Epoch: a.epoch, NextSequence: a.made.Load() + 1, Digest: digest[:]}
	return a.send(func() { a.out.Send(begin) })
}

// most is how many tokens all choices may have; 0 for as many as there are.
func (a *attempt) most() int { return a.request.MaxTokens * a.request.Choices }

// full reports whether there are as many tokens as were asked for.
func (a *attempt) full() bool { return a.most() > 0 && a.tokens >= a.most() }

// mayGo waits until there is credit for the next token, and room for it in what waits for the director.
func (a *attempt) mayGo(ctx context.Context) error {
	for a.credit.Load() <= a.made.Load() {
		select {
		case <-a.raised:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return a.out.queue.room(ctx)
}

// grant raises the credit.
func (a *attempt) grant(sequence uint64) {
	if sequence <= a.credit.Load() {
		return
	}
	a.credit.Store(sequence)
	select {
	case a.raised <- struct{}{}:
	default:
	}
}

func (a *attempt) put(made engine.Chunk) error {
	if err := made.Check(); err != nil {
		return fmt.Errorf("the engine made %w", err)
	}
	a.tokens += made.Count()
	switch most := a.most(); {
	case made.Choice >= a.request.Choices:
		return fmt.Errorf("the engine made a chunk of choice %d, asked for were %d", made.Choice, a.request.Choices)
	case most > 0 && a.tokens > most:
		return fmt.Errorf("the engine made %d tokens, asked for were %d", a.tokens, most)
	}
	chunk := toWire(made)
	chunk.Session, chunk.Epoch, chunk.Sequence = a.session, a.epoch, a.made.Load()+1
	if err := a.sendChunk(chunk); err != nil {
		return err
	}
	a.digest.Add(chunk)
	a.made.Store(chunk.Sequence)
	a.link.server.counters.made()
	return nil
}

// send puts something out, unless the attempt was stopped: from then on nothing of it leaves.
func (a *attempt) send(put func()) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return context.Canceled
	}
	put()
	return nil
}

// progressEvery is how often at most a director is told how far an engine is.
const progressEvery = 100 * time.Millisecond

// progress returns what tells the director how far the engine is before it begins. It never blocks.
func (a *attempt) progress() engine.Progress {
	var last atomic.Int64 // when the director was told, in nanoseconds since start
	start := time.Now()
	return func(at, of int) {
		now, before := int64(time.Since(start)), last.Load()
		if now < before+int64(progressEvery) || !last.CompareAndSwap(before, now) {
			return
		}
		m := &wirepb.Progressing{Session: a.session, Epoch: a.epoch, At: uint64(max(0, at)), Of: uint64(max(0, at, of))}
		_ = a.send(func() { a.out.Send(m) }) // who was stopped has no progress
	}
}

// sendChunk is send for a chunk, of which there are many.
func (a *attempt) sendChunk(chunk wire.Chunk) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return context.Canceled
	}
	a.out.PutChunk(chunk)
	return nil
}

// finish puts out how the generation ended: in a Finish, or it failed.
func (a *attempt) finish(err error) {
	log := a.log.With(zap.Uint64("sequence", a.made.Load()))
	if f, ok := engine.Finished(err); ok {
		if a.leave(func() { a.out.Send(a.endOf(f)) }) {
			log.Info("session completed", zap.String("reason", f.Reason))
		}
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the engine's text ended without a finish")
	}
	e := wire.AsError(err, wire.CodeEngine)
	fail := &wirepb.Fail{Session: a.session, Epoch: a.epoch, Code: wire.Text(string(e.Code)), Message: wire.Text(e.Message)}
	if a.leave(func() { a.out.Send(fail) }) {
		log.Warn("session failed", zap.Error(err))
	}
}

// endOf returns how the director is told of a Finish.
func (a *attempt) endOf(f engine.Finish) *wirepb.End {
	digest, count := a.digest.Digest(), func(n int) uint64 { return uint64(max(0, n)) }
	end := &wirepb.End{
		Session: a.session, Epoch: a.epoch, FinishReason: wire.Text(f.Reason), Tokens: a.made.Load(), Digest: digest[:],
		Usage: &wirepb.Usage{
			PromptTokens: count(f.Usage.Prompt), CompletionTokens: count(f.Usage.Completion),
			CachedTokens: count(f.Usage.Cached), ReasoningTokens: count(f.Usage.Reasoning),
		},
	}
	for _, reason := range f.Reasons {
		end.FinishReasons = append(end.FinishReasons, wire.Text(reason))
	}
	return end
}

// leave gives the place back and puts out the last message, unless the attempt was stopped. In this order: the
// director may fill the place at once.
func (a *attempt) leave(last func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.over = true
	a.link.server.release(a.model, a.bytes)
	last()
	return true
}

// stop ends the attempt. When it returns nothing more of it is put out, and its place is free; its goroutine
// may still be on its way out.
func (a *attempt) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.over = true
		a.link.server.release(a.model, a.bytes)
	}
	a.cancel()
}

func (a *attempt) describe() Session {
	return Session{
		ID: a.session, Epoch: a.epoch, ConnectionID: a.connection, StreamID: a.stream,
		Sequence: a.made.Load(), Credit: a.credit.Load(), Director: a.link.director,
	}
}
