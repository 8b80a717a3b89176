package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"

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
	prefix     *wirepb.Prefix // until the engine has it
	checkpoint *wirepb.Fetch  // where the engine's state is; nil if nowhere
	standby    bool           // nothing is generated before Pivot
	log        *zap.Logger

	digest *session.Rolling // over prefix and tokens so far
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
		bytes:      sessionBytes + len(m.GetRequest().GetPrompt()) + tokenBytes(m.GetPrefix()),
		raised:     make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		request: engine.Request{
			Prompt:    m.GetRequest().GetPrompt(),
			MaxTokens: int(m.GetRequest().GetMaxTokens()),
			Seed:      m.GetRequest().GetSeed(),
		},
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

// tokenBytes is what tokens cost that a director has sent: their text, and the slices of it.
func tokenBytes(p *wirepb.Prefix) int { return len(p.GetText()) + 24*len(p.GetLengths()) }

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
		if a.pass(ctx) == nil {
			a.leave(func() { a.link.refuse(a.session, a.epoch, refusal) })
		}
		return
	}
	a.prefix, a.digest = nil, digest
	a.made.Store(uint64(len(prefix)))
	reason, err := a.generate(ctx, prefix)
	if a.pass(ctx) == nil && ctx.Err() == nil { // else it was stopped, or the link is gone
		a.finish(reason, err)
	}
}

// pass waits at the worker's gate.
func (a *attempt) pass(ctx context.Context) error { return a.link.server.deps.Gate.Wait(ctx) }

// generate returns the finish reason.
func (a *attempt) generate(ctx context.Context, prefix [][]byte) (reason string, err error) {
	defer func() {
		if p := recover(); p != nil { // an engine's defect ends one session, not the worker
			a.log.Error("engine panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()), a.link.few())
			err = fmt.Errorf("engine panicked: %v", p)
		}
	}()
	g, err := a.open(ctx, prefix)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.close(g)) }()
	if err := a.begin(ctx); err != nil {
		return "", err
	}
	walker := a.link.server.deps.Clock.Walker()
	for limit := uint64(a.request.MaxTokens); limit == 0 || a.made.Load() < limit; {
		if err := a.mayGo(ctx); err != nil {
			return "", err
		}
		if err := walker.Wait(ctx); err != nil {
			return "", err
		}
		text, err := a.next(ctx, g)
		if errors.Is(err, io.EOF) {
			return "stop", nil
		}
		if err != nil {
			return "", err
		}
		if err := a.put(ctx, text); err != nil {
			return "", err
		}
	}
	return "length", nil
}

// open returns the generation that goes on after prefix, or, for a standby, after what it was brought until its pivot.
func (a *attempt) open(ctx context.Context, prefix [][]byte) (g engine.Generation, err error) {
	f := &follower{attempt: a, tokens: prefix}
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
	a.position = a.made.Load()
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

// next returns the next token. While the engine works its state is not captured.
func (a *attempt) next(ctx context.Context, g engine.Generation) ([]byte, error) {
	if a.capturer == nil { // written by this goroutine only
		return g.Next(ctx)
	}
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	text, err := g.Next(ctx)
	if err == nil {
		a.position++
	}
	return text, err
}

func (a *attempt) begin(ctx context.Context) error {
	if err := a.pass(ctx); err != nil {
		return err
	}
	a.log.Info("session attached", zap.Uint64("sequence", a.made.Load()))
	digest := a.digest.Digest()
	begin := &wirepb.Begin{Session: a.session, Epoch: a.epoch, NextSequence: a.made.Load() + 1, Digest: digest[:]}
	return a.send(func() { a.out.Send(begin) })
}

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

func (a *attempt) put(ctx context.Context, text []byte) error {
	if len(text) < 1 || len(text) > wire.MaxToken {
		return fmt.Errorf("the engine made a token of %d bytes, allowed are 1 to %d", len(text), wire.MaxToken)
	}
	if err := a.pass(ctx); err != nil {
		return err
	}
	token := wire.Token{Session: a.session, Epoch: a.epoch, Sequence: a.made.Load() + 1, Text: text}
	if err := a.sendToken(token); err != nil {
		return err
	}
	a.digest.Add(text)
	a.made.Store(token.Sequence)
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

// sendToken is send for a token, of which there are many.
func (a *attempt) sendToken(token wire.Token) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return context.Canceled
	}
	a.out.PutToken(token)
	return nil
}

// finish puts out how the generation ended.
func (a *attempt) finish(reason string, err error) {
	log := a.log.With(zap.Uint64("sequence", a.made.Load()))
	if err == nil {
		digest := a.digest.Digest()
		end := &wirepb.End{Session: a.session, Epoch: a.epoch, FinishReason: reason, Tokens: a.made.Load(), Digest: digest[:]}
		if a.leave(func() { a.out.Send(end) }) {
			log.Info("session completed", zap.String("reason", reason))
		}
		return
	}
	e := wire.AsError(err, wire.CodeEngine)
	fail := &wirepb.Fail{Session: a.session, Epoch: a.epoch, Code: wire.Text(string(e.Code)), Message: wire.Text(e.Message)}
	if a.leave(func() { a.out.Send(fail) }) {
		log.Warn("session failed", zap.Error(err))
	}
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
	a.link.server.release(a.bytes)
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
		a.link.server.release(a.bytes)
	}
	a.cancel()
}

func (a *attempt) describe() Session {
	return Session{
		ID: a.session, Epoch: a.epoch, ConnectionID: a.connection, StreamID: a.stream,
		Sequence: a.made.Load(), Credit: a.credit.Load(), Director: a.link.director,
	}
}
