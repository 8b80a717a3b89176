package connswap

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// frameLimit is what a director's frame to a client may have, in bytes: far more than any does. A stream's
// buffer is as large.
const frameLimit = 16 << 10

// ackEvery is how often the director is told how far a stream was read, while it goes on.
const ackEvery = time.Second

// endTimeout bounds the wait for the end of a stream whose last frame has arrived.
const endTimeout = time.Second

// Stream is one generation. One goroutine at a time reads it; Close may be called from any.
//
// It has no goroutine of its own: whoever does not read holds the director back, and nothing is lost. Where the connection
// was lost it is the reader that dials the director again.
type Stream struct {
	id      uint64
	conn    *Conn
	request *wirepb.Request // nil once the director is known to have it

	ctx    context.Context // ends with the caller's, by Close, and with the stream
	cancel context.CancelCauseFunc
	detach func() bool // keeps the end of ctx from aborting

	carrier *carrier // what carries it now; the reader owns this, and frames
	frames  *wire.Reader
	mu      sync.Mutex
	quic    *quic.Stream // of carrier; the reader changes it
	release func()       // says that the carrier is not used any more; nil once ctx has ended

	ledger   ledger
	rhythm   rhythm
	acked    time.Time    // when the director was told last how far it was read
	patience atomic.Int64 // the rhythm's, as a time.Duration, as of some tokens ago; for the prober

	pending *Swapped // read, but not told before what follows is known
	next    Event    // told after pending
	err     error    // how the stream ended; errComplete after Done
}

// newStream returns a stream that is not on its way yet.
func newStream(ctx context.Context, c *Conn, id uint64, request *wirepb.Request) *Stream {
	s := &Stream{id: id, conn: c, request: request, release: func() {}}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.detach = context.AfterFunc(s.ctx, s.abort)
	context.AfterFunc(s.ctx, func() {
		c.end()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release()
		s.release = nil
	})
	return s
}

// use has the stream go over a new QUIC stream of a carrier.
func (s *Stream) use(c *carrier) error {
	qs, err := c.quic.OpenStreamSync(s.ctx)
	if err != nil {
		return err
	}
	endWatch, endProbes := c.watch.Begin(), c.prober.begin(s)
	release := func() {
		endWatch()
		endProbes()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.release == nil {
		release() // the stream has ended meanwhile
	} else {
		s.release()
		s.release = release
	}
	s.carrier, s.quic, s.frames = c, qs, wire.NewReader(qs, frameLimit)
	return nil
}

// ID is the stream's number on its connection: 1, 2, 3 …
func (s *Stream) ID() uint64 { return s.id }

// Close cancels the stream if it is not complete: the director is told to stop, and its worker stops. A read
// that is under way ends at once, with ErrClosed.
func (s *Stream) Close() {
	if s.detach() { // not ended before
		s.cancel(ErrClosed)
		s.abort()
	}
}

// abort makes reads and writes fail, and tells the director.
func (s *Stream) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quic != nil {
		s.quic.CancelRead(wire.StreamCancel)
		s.quic.CancelWrite(wire.StreamCancel)
	}
}

// ask sends the request over a carrier.
func (s *Stream) ask(c *carrier) error {
	if err := s.use(c); err != nil {
		return err
	}
	return s.send(&wirepb.Generate{Request: s.request, Stream: s.id})
}

// send writes the one frame of this side, and ends it.
func (s *Stream) send(m wire.Message) error {
	_, err := s.quic.Write(wire.Append(nil, m))
	var stopped *quic.StreamError
	if errors.As(err, &stopped) && stopped.Remote {
		s.quic.CancelWrite(wire.StreamCancel)
		return nil // the director wants no more of it; why is for the reader to find
	}
	if err != nil {
		return err
	}
	_ = s.quic.Close() // fails where the director wants no more of it, as above
	return nil
}

// Events yields what happens on the stream, until Done or an error, which is the last thing it yields. Leaving
// the loop earlier cancels the stream.
func (s *Stream) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s.each(func(event Event, err error) bool {
			if _, ok := event.(tokenRead); ok {
				event = s.ledger.token
			}
			return yield(event, err)
		})
	}
}

// Tokens is Events with nothing but the tokens, and the error.
func (s *Stream) Tokens() iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		s.each(func(event Event, err error) bool {
			if err != nil {
				return yield(Token{}, err)
			}
			_, ok := event.(tokenRead)
			return !ok || yield(s.ledger.token, nil)
		})
	}
}

// each reads the stream to its end, or until yield returns false: then it cancels it.
func (s *Stream) each(yield func(Event, error) bool) {
	for {
		event, err := s.read()
		if errors.Is(err, errComplete) {
			return
		}
		if !yield(event, err) {
			s.Close()
			return
		}
		if err != nil {
			return
		}
	}
}

// read returns the next event, tokenRead for a token. A swap is pending until the event after it is there.
func (s *Stream) read() (Event, error) {
	if event := s.next; event != nil {
		s.next = nil
		return event, nil
	}
	for s.err == nil {
		event, err := s.receive()
		if _, ok := event.(Resumed); ok {
			return event, nil // the swap still waits for its token
		}
		pending := s.pending
		s.pending = nil
		if swapped, ok := event.(*Swapped); ok {
			s.pending, event = swapped, nil
		}
		if pending != nil {
			s.next = event // an error stays in s.err
			return s.completeSwap(pending)
		}
		if event != nil || err != nil {
			return event, err
		}
	}
	return nil, s.err
}

// completeSwap completes a swap: nothing more will be known of it.
func (s *Stream) completeSwap(swapped *Swapped) (Event, error) {
	var err error
	if swapped.Proof, err = s.conn.Proof(); err != nil {
		s.next = nil
		return nil, s.fail(wire.Errorf(CodeInternal, "%v", err))
	}
	swapped.Interval = s.rhythm.usual()
	return *swapped, nil
}

// receive reads one frame and checks it.
func (s *Stream) receive() (Event, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, s.fail(err) // whatever the buffer still has
	}
	frame, err := s.frames.Next()
	if err != nil && s.ctx.Err() == nil {
		if lost := s.lost(s.carrier, err); lost != nil {
			return s.resume(lost)
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = broken(ErrTruncated, "the last token was %d", s.ledger.sequence)
	}
	if err != nil {
		return nil, s.fail(err)
	}
	event, err := s.ledger.accept(frame)
	if err != nil {
		return nil, s.fail(err)
	}
	s.request = nil
	switch e := event.(type) {
	case tokenRead:
		s.beat(time.Now())
	case Done:
		s.carrier.acknowledge(s.id, s.ledger.records)
		err = s.complete(errComplete)
	case failed:
		s.carrier.acknowledge(s.id, s.ledger.records)
		event, err = nil, s.complete(e.err)
	}
	return event, err
}

// beat records when a token was read.
func (s *Stream) beat(now time.Time) {
	if s.pending != nil {
		s.pending.Gap = s.rhythm.pause(now)
	} else {
		s.rhythm.beat(now)
		if s.rhythm.count%8 == leastIntervals { // every eighth token
			s.patience.Store(int64(s.rhythm.patience()))
			if now.Sub(s.acked) >= ackEvery {
				s.acked = now
				s.carrier.acknowledge(s.id, s.ledger.records)
			}
		}
	}
	s.carrier.prober.heard(now)
}

// errComplete is how a stream ended that is Done.
var errComplete = errors.New("the stream is complete")

// complete ends the stream after its last frame, which says how. Only the end may follow that frame; waiting
// for it lets QUIC forget the stream without a further word to the director.
func (s *Stream) complete(how error) error {
	extra, err := s.frames.Buffered(), s.quic.SetReadDeadline(time.Now().Add(endTimeout))
	if extra == 0 && err == nil {
		extra, err = s.quic.Read(make([]byte, 1))
	}
	if extra > 0 {
		return s.fail(broken(ErrFrame, "more after the last one"))
	}
	if !errors.Is(err, io.EOF) {
		s.abort() // what the stream had to say is said
	}
	s.end(how)
	if errors.Is(how, errComplete) {
		return nil
	}
	return s.err
}

// fail ends the stream where it cannot go on, and returns the error for its reader.
func (s *Stream) fail(err error) error {
	err = explainIn(s.ctx, err)
	s.abort()
	s.end(err)
	return s.err
}

// end makes the stream stay as it ended.
func (s *Stream) end(how error) {
	s.err = how
	s.detach()
	s.cancel(how)
}
