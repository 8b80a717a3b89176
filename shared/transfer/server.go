package transfer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	stallTimeout = 10 * time.Second // how long the puller may take for one chunk
	doneTimeout  = 10 * time.Second // how long it may take to check all of them
)

// Server answers Pull on a MGMT port. It is safe for concurrent use, once its fields are set.
type Server struct {
	Store *Store
	// Show returns what the token of a secret says, if it is good: in time, for a state transfer from here to puller, and
	// not used before. It is asked when a transfer begins, not when it goes on after a lost connection. It must not block.
	Show func(secret []byte, puller string) (*wirepb.Token, error)
	// Limiter counts the bytes of all transfers; nil for no limit.
	Limiter *rate.Limiter
	Log     *zap.Logger

	mu sync.Mutex // what is known of a token does not change while it is judged
}

// sending is one stream of a transfer.
type sending struct {
	*use

	snapshot *Snapshot
	seal     *seal
	next     uint32 // chunk
}

// Serve sends the snapshot that ask is about, from the chunk on that it names, and waits for PullDone. Then the
// token is over, and a snapshot that is no checkpoint is dropped. The error is a *wire.Error if that is refused,
// at the beginning or on the way; mgmt.Server tells the puller.
func (s *Server) Serve(ctx context.Context, stream mgmt.Stream, ask *wirepb.Pull) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(stream.Context(), func() { cancel(errUnwanted) })()
	out, err := s.admit(ask, cancel)
	if err != nil {
		return err
	}
	err = s.send(ctx, stream, out)
	if err == nil {
		err = s.await(stream, out)
	}
	s.Log.Debug("state transfer", zap.String("connection.id", out.token.GetConnectionId()),
		zap.Uint64("stream.id", out.token.GetStreamId()), zap.String("to_worker", out.token.GetTarget()),
		zap.Uint32("first", ask.GetFirstChunk()), zap.Uint32("next", out.next), zap.Int("size", out.snapshot.Size()),
		zap.Bool("whole", err == nil))
	return err
}

// Revoke ends the transfers of a session that are under way; their tokens are over. Snapshots stay. Call it once
// Show refuses the tokens that are revoked.
func (s *Server) Revoke(director string, session uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store.revoke(director, session)
}

// admit judges the token and finds the snapshot. cancel is called when the transfer shall end.
func (s *Server) admit(ask *wirepb.Pull, cancel context.CancelCauseFunc) (*sending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.Store.resume(ask.GetSecret(), ask.GetPuller(), cancel)
	if err != nil {
		return nil, err
	}
	if u == nil {
		token, err := s.Show(ask.GetSecret(), ask.GetPuller())
		if err != nil {
			return nil, refusal(err, ask.GetFirstChunk())
		}
		if u = s.Store.begin(token, cancel); u == nil {
			return nil, errGone
		}
	}
	return newSending(u, ask.GetFirstChunk())
}

// refusal is what a puller is told of its token. One that wants to go on with what is not known any more learns
// that it is gone: that is why its token, used and maybe forgotten, does not count.
func refusal(err error, first uint32) *wire.Error {
	refusal := wire.AsError(err, wire.CodeUnauthorized)
	switch refusal.Code { //nolint:exhaustive // all others stay what they are
	case wire.CodeTokenReplayed, wire.CodeTokenExpired, wire.CodeTokenUnknown:
		if first > 0 {
			return errGone
		}
	}
	return refusal
}

func newSending(u *use, first uint32) (*sending, error) {
	snapshot := u.entry.snapshot
	if int64(first) > int64(len(snapshot.chunks)) {
		return nil, wire.Errorf(wire.CodeInvalid, "chunk %d of %d", first, len(snapshot.chunks))
	}
	seal, err := newSeal(u.token, snapshot.header())
	if err != nil {
		return nil, wire.Errorf(wire.CodeInvalid, "%v", err)
	}
	return &sending{use: u, snapshot: snapshot, seal: seal, next: first}, nil
}

// send writes the header and the chunks. When the transfer shall end it stops between two frames, so that the
// puller can be told why.
func (s *Server) send(ctx context.Context, stream mgmt.Stream, out *sending) error {
	frame := wire.Append(nil, out.snapshot.header())
	if err := write(stream, frame); err != nil {
		return err
	}
	var sealed []byte
	for ; int(out.next) < len(out.snapshot.chunks); out.next++ {
		sealed = out.seal.close(sealed[:0], out.next, out.snapshot.chunks[out.next])
		if err := s.wait(ctx, len(sealed)); err != nil {
			return err
		}
		frame = wire.Append(frame[:0], &wirepb.Chunk{Number: out.next, Sealed: sealed})
		if err := write(stream, frame); err != nil {
			return err
		}
	}
	return nil
}

// wait returns when n more bytes may be sent. The error is the cause of ctx's end.
func (s *Server) wait(ctx context.Context, n int) error {
	for n > 0 && ctx.Err() == nil {
		part := n // a chunk may be more than the limiter ever gives out at once
		if s.Limiter == nil || s.Limiter.Limit() == rate.Inf {
			break
		}
		if burst := s.Limiter.Burst(); burst > 0 {
			part = min(n, burst)
		}
		if err := s.Limiter.WaitN(ctx, part); err != nil && ctx.Err() == nil {
			return fmt.Errorf("waiting to send: %w", err)
		}
		n -= part
	}
	return context.Cause(ctx)
}

func write(stream mgmt.Stream, frame []byte) error {
	if err := stream.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return err
	}
	_, err := stream.Write(frame)
	return err
}

// await waits until the puller has everything and knows that it is right.
func (s *Server) await(stream mgmt.Stream, out *sending) error {
	if err := stream.SetReadDeadline(time.Now().Add(doneTimeout)); err != nil {
		return err
	}
	if _, err := wire.ReadRequest[*wirepb.PullDone](stream.Reader); err != nil {
		return fmt.Errorf("waiting for PullDone: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store.finish(out.use)
	return nil
}
