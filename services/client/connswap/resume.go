package connswap

import (
	"errors"
	"net"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// resume takes the stream up again after its carrier was lost, where its reader stands. It returns a Resumed once the
// director has agreed; the next token is the next one. It tries as long as the director keeps the stream.
func (s *Stream) resume(lost error) (Event, error) {
	cause := explain(lost)
	for {
		c, err := s.conn.revive(s.ctx, s.carrier)
		if err != nil {
			return nil, s.fail(err)
		}
		if err = s.takeUp(c); err == nil {
			break
		}
		if s.ctx.Err() != nil || s.lost(c, err) == nil {
			return nil, s.fail(gone(cause, err))
		}
		s.carrier = c // lost as well
	}
	proof, err := s.conn.Proof()
	if err != nil {
		return nil, s.fail(wire.Errorf(CodeInternal, "%v", err))
	}
	r := Resumed{Sequence: s.ledger.sequence, Cause: cause, Interval: s.rhythm.usual(), Proof: proof}
	if last := s.rhythm.last; !last.IsZero() {
		r.Gap = s.rhythm.pause(time.Now())
	}
	return r, nil
}

// lost returns why a carrier was lost with which something failed, if the stream may go on over another one; else nil.
func (s *Stream) lost(c *carrier, failed error) error {
	var socket *net.OpError                                             // of the connection as well: nothing is read or written for a stream alone
	if errors.Is(failed, net.ErrClosed) || errors.As(failed, &socket) { // QUIC ends streams before it says that the connection is over
		select {
		case <-c.quic.Context().Done():
		case <-s.ctx.Done():
		}
	}
	return s.conn.resumable(c)
}

// gone returns the error for a stream that was lost with its connection, because of a cause, and cannot be taken up. Where the
// director knows nothing of the connection any more it is the cause that matters.
func gone(cause, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Code == CodeResumeUnknown {
		return fault.New(CodeLost, errors.Join(cause, err), "%v; and the director does not keep this client's streams any more", cause)
	}
	return err
}

// takeUp asks for the stream over another carrier. If the director never heard of it, it is asked for as a new one.
func (s *Stream) takeUp(c *carrier) error {
	digest := s.ledger.digest.Digest()
	err := s.takeUpBy(c, &wirepb.Resume{
		Stream: s.id, Records: s.ledger.records, Sequence: s.ledger.sequence, Digest: digest[:],
	})
	if err != nil {
		return err
	}
	_, err = wire.ReadMessage[*wirepb.Resumed](s.frames)
	var e *Error
	if errors.As(err, &e) && e.Code == CodeResumeStream && s.request != nil {
		return s.takeUpBy(c, &wirepb.Generate{Request: s.request, Stream: s.id})
	}
	return err
}

// takeUpBy sends what the stream has to say first, and waits until the director knows whose it is.
func (s *Stream) takeUpBy(c *carrier, m wire.Message) error {
	if err := s.use(c); err != nil {
		return err
	}
	if err := s.send(m); err != nil {
		return err
	}
	_, err := c.greeted(s.ctx)
	return err
}
