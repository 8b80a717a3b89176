package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
)

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
	defer s.recovered(&err)
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
	if err := s.begin(g); err != nil {
		return err
	}
	if g, ok := g.(engine.Stepped); ok && s.model.batch != nil && s.capturer == nil { // a capture may wait for its turn, and a batch for nobody
		return s.model.batch.generate(ctx, s, g)
	}
	for {
		if err := s.mayGo(ctx); err != nil {
			return err
		}
		chunk, err := s.next(ctx, g)
		if err != nil {
			return err
		}
		if err := s.put(chunk); err != nil {
			return err
		}
		s.flush()
	}
}

// recovered is for deferring: an engine's defect ends one session, not the worker.
func (s *Session) recovered(err *error) {
	if p := recover(); p != nil {
		s.log.Error("engine panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()), s.few())
		*err = fmt.Errorf("engine panicked: %v", p)
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

func (s *Session) begin(g engine.Generation) error {
	s.log.Info("session attached", zap.Uint64("sequence", s.made.Load()))
	begun := Begun{Next: s.made.Load() + 1, Digest: s.digest.Digest()}
	if p, ok := g.(engine.Prompted); ok {
		begun.PromptTokens = uint64(max(0, p.PromptTokens()))
	}
	if p, ok := g.(engine.Pledging); ok {
		pledge := p.Pledge()
		begun.Pledge = &pledge
	}
	return s.tell(begun)
}

// most is how many tokens all choices may have; 0 for as many as there are.
func (s *Session) most() int { return s.request.MaxTokens * s.request.Choices }

// full reports whether there are as many tokens as were asked for.
func (s *Session) full() bool { return s.most() > 0 && s.tokens >= s.most() }

// mayGo waits until there is credit for the next token, and room for it in what waits for the director. Where there are as many as
// were asked for the engine has nothing but a finish.
func (s *Session) mayGo(ctx context.Context) error {
	if s.full() {
		return nil
	}
	for s.credit.Load() <= s.made.Load() {
		select {
		case <-s.raised:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s.room(ctx)
}

// mayGoNow reports whether mayGo would not wait.
func (s *Session) mayGoNow() bool {
	return s.full() || s.credit.Load() > s.made.Load() && s.roomy()
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
	if s.end(ctx, Failed{engine.CodeOf(err)}) {
		log.Warn("session failed", zap.Error(err))
	}
}
