package session

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// maxOrders bounds what a standby has been told and not done yet: a director waits for each answer.
const maxOrders = 4

// follower brings a session's engine to where the stream is: after the last of its tokens. The goroutine of
// Session.run owns it.
type follower struct {
	*Session

	chunks     []engine.Chunk    // of the stream so far
	generation engine.Generation // nil until it can be opened
	at         uint64            // the generation is after this token; beyond chunks if the director has not fed these yet
}

// length is how many tokens the stream has so far.
func (f *follower) length() uint64 { return uint64(len(f.chunks)) }

// takeOver opens the engine after the tokens: from a checkpoint if there is one, or else as the engine can.
func (f *follower) takeOver(ctx context.Context) error {
	if f.checkpoint != nil {
		err := f.resume(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		f.log.Warn("the checkpoint is of no use; the engine starts over", zap.Error(err))
		if g := f.generation; g != nil {
			f.generation = nil
			if err := g.Close(); err != nil {
				return err
			}
		}
	}
	return f.start(ctx)
}

// resume goes on from the checkpoint.
func (f *follower) resume(ctx context.Context) error {
	if err := f.fetch(ctx, f.checkpoint); err != nil {
		return err
	}
	if f.at > f.length() {
		return wire.Errorf(wire.CodeDiverged, "it is after token %d, the stream has %d", f.at, f.length())
	}
	return f.follow(ctx)
}

// start lets the engine begin with the tokens alone.
func (f *follower) start(ctx context.Context) (err error) {
	f.generation, err = f.model.Open(ctx, f.request, f.chunks, f.progress())
	f.at = f.length()
	return err
}

// standBy does what the director says until the pivot, and tells it how far it is. The engine is opened at once, unless
// its state is still to come.
func (f *follower) standBy(ctx context.Context) error {
	if _, ok := f.model.Engine.(engine.Stateful); !ok {
		if err := f.start(ctx); err != nil {
			return err
		}
	}
	for {
		if err := f.prepared(); err != nil {
			return err
		}
		select {
		case order := <-f.orders:
			pivoted, err := f.obey(ctx, order)
			if pivoted || err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// prepared tells the director how far the standby is.
func (f *follower) prepared() error {
	return f.tell(Prepared{f.length()})
}

// obey does one thing that the director asks of a standby. pivoted says that the standby has become the session's owner.
func (f *follower) obey(ctx context.Context, order any) (pivoted bool, err error) {
	switch m := order.(type) {
	case *wirepb.Feed:
		err = f.feed(m)
	case *wirepb.Fetch:
		if err = f.fetch(ctx, m); err == nil && f.at > m.GetSequence() { // it could not take over at the cut
			err = wire.Errorf(wire.CodeStateGone, "the state is that after token %d, not %d", f.at, m.GetSequence())
		}
	case *wirepb.Pivot:
		return true, f.pivot(ctx, m)
	}
	if err != nil {
		return false, err
	}
	return false, f.follow(ctx)
}

// feed takes tokens that the source has made.
func (f *follower) feed(m *wirepb.Feed) error {
	if m.GetFirstSequence() != f.length()+1 {
		return wire.Errorf(wire.CodeDiverged, "fed from token %d on, after %d", m.GetFirstSequence(), f.length())
	}
	pack := session.PackOf(m)
	if err := f.grow(pack.Size()); err != nil {
		return err
	}
	more, _, err := pack.Split()
	if err != nil {
		return wire.Errorf(wire.CodeInvalid, "%v", err)
	}
	for _, chunk := range more {
		f.digest.Add(chunk)
	}
	f.chunks = append(f.chunks, toEngine(more)...)
	f.made.Store(f.length())
	return nil
}

// follow brings the engine behind the chunks that the stream has already. They have to be those that it would have made.
func (f *follower) follow(ctx context.Context) error {
	if f.generation == nil || f.at >= f.length() {
		return nil
	}
	err := engine.Advance(ctx, f.generation, f.chunks[f.at:], f.progress())
	f.at = f.length()
	return err
}

// pivot makes the standby the session's owner after the cut.
func (f *follower) pivot(ctx context.Context, m *wirepb.Pivot) error {
	if f.generation == nil {
		return wire.Errorf(wire.CodeProtocol, "pivot before the state")
	}
	if err := f.feed(m.GetRest()); err != nil {
		return err
	}
	here := f.digest.Digest()
	if m.GetCut() != f.length() || !here.Equal(m.GetDigest()) || f.at > f.length() {
		return wire.Errorf(wire.CodeDiverged, "cut at %d with digest %x at the director; here %d tokens with %s, the engine after %d",
			m.GetCut(), m.GetDigest(), f.length(), here, f.at)
	}
	if err := f.follow(ctx); err != nil {
		return err
	}
	f.grant(m.GetCredit())
	return nil
}

// fetch gets the engine's state from where it is, and opens the engine with it.
func (f *follower) fetch(ctx context.Context, m *wirepb.Fetch) error {
	stateful, ok := f.model.Engine.(engine.Stateful)
	if !ok || f.generation != nil {
		return wire.Errorf(wire.CodeProtocol, "a state is of no use to this engine now")
	}
	snapshot, err := f.states.Fetch(ctx, m)
	if err != nil {
		return err
	}
	state, err := snapshot.State()
	if err != nil {
		return err
	}
	if f.generation, err = stateful.Restore(ctx, f.request, state); err != nil {
		return fmt.Errorf("restoring the state after token %d: %w", snapshot.Sequence(), err)
	}
	f.at = snapshot.Sequence()
	f.log.Debug("state restored", zap.Uint64("sequence", snapshot.Sequence()), zap.Int("bytes", snapshot.Size()))
	return nil
}

// Order gives a standby something to do: a Feed, a Fetch or a Pivot. What does not stand by, or no more, ignores it. A standby
// that has more to do than any director asks for at once is to be given up: that is the error.
func (s *Session) Order(m wire.Message) *wire.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders == nil {
		return nil
	}
	select {
	case s.orders <- m:
		return nil
	default:
		return wire.Errorf(wire.CodeProtocol, "more than %d orders at once", maxOrders)
	}
}
