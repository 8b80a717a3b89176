// Package linktest has a scripted worker for tests of whatever holds links: it keeps what the director sends, and says
// what the test tells it to, over a connection in memory.
package linktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// ErrDead is what whoever dials a lost worker gets.
var ErrDead = errors.New("nobody there")

// Fake is one scripted worker. It is the link.Dialer that leads to itself, takes one link, and welcomes it.
// It is safe for concurrent use.
type Fake struct {
	peer link.Peer
	ctx  context.Context // of the connection
	end  context.CancelCauseFunc

	up     chan struct{} // closed when the link is up
	closed chan struct{} // closed when the director has closed the connection
	once   sync.Once     // for closed

	control   *stream // to the director
	tokens    *stream
	tether    *stream
	datagrams chan []byte
	taken     sync.Once // the token stream

	mu      sync.Mutex
	dialled bool
	sent    bytes.Buffer // by the director, after its hello
	hello   *wirepb.LinkHello
	deaf    bool   // takes nothing from the control stream any more
	packets uint64 // that the director received
	path    quic.ConnectionStats
	rhythm  []time.Duration
}

// NewFake returns a worker that waits for its link.
func NewFake(peer link.Peer) *Fake {
	w := &Fake{peer: peer, up: make(chan struct{}), closed: make(chan struct{}), control: newStream(), tokens: newStream(), tether: newStream(), datagrams: make(chan []byte)}
	w.ctx, w.end = context.WithCancelCause(context.Background())
	return w
}

// Dial takes the director's only link to this worker.
func (w *Fake) Dial(context.Context, link.Peer) (link.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dialled || w.ctx.Err() != nil {
		return nil, ErrDead
	}
	w.dialled = true
	return conn{w}, nil
}

// Connected is closed when the link is up.
func (w *Fake) Connected() <-chan struct{} { return w.up }

// Closed is closed when the director has closed the connection: all that follows from the loss of the link has begun.
func (w *Fake) Closed() <-chan struct{} { return w.closed }

// Hello returns what the director greeted with.
func (w *Fake) Hello() *wirepb.LinkHello {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hello
}

// Received returns what was sent on the control stream since the last call, in order, but for Rhythm. The error is that
// of a malformed frame.
func (w *Fake) Received() ([]wire.Message, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.sent.Reset()
	var all []wire.Message
	frames := wire.NewReader(bytes.NewReader(w.sent.Bytes()), wire.MaxAttach)
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		m, err := wire.Decode(f)
		if err != nil {
			return nil, err
		}
		if r, ok := m.(*wirepb.Rhythm); ok {
			w.rhythm = append(w.rhythm, time.Duration(r.GetProgressIntervalMs())*time.Millisecond)
			continue
		}
		all = append(all, m)
	}
}

// Rhythm returns how often the director asked for progress, of what Received has seen since the last call.
func (w *Fake) Rhythm() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.rhythm = nil }()
	return w.rhythm
}

// Report says something on the control stream, and returns when the director has acted on it. The error is why the link
// ended meanwhile. A link that ended before hears nothing.
func (w *Fake) Report(m wire.Message) error { return w.say(w.control, wire.Append(nil, m)) }

// Progress sends a report of progress, and returns when the director has it. The error is as for Report.
func (w *Fake) Progress(m *wirepb.Progress) error {
	w.mu.Lock()
	w.packets++
	w.mu.Unlock()
	for range 2 { // when the second one is taken, the first has been acted on
		select {
		case w.datagrams <- wire.Append(nil, m):
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	return nil
}

// Say says frames on a token stream, which arrive at once, and returns when the director has acted on them. The error
// is as for Report.
func (w *Fake) Say(frames []byte) error { return w.say(w.tokens, frames) }

func (w *Fake) say(s *stream, b []byte) error {
	if w.ctx.Err() != nil {
		return nil
	}
	w.mu.Lock()
	w.packets++
	w.mu.Unlock()
	if err := s.say(w.ctx, b); err != nil {
		return fmt.Errorf("%s: %w", w.peer.Label, err)
	}
	return nil
}

// StopReading makes the director's writes block.
func (w *Fake) StopReading() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
}

// Path sets what the path looks like to the director.
func (w *Fake) Path(roundTrip, deviation time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path.SmoothedRTT, w.path.MeanDeviation = roundTrip, deviation
}

// Cut ends the connection under the link with an error that its reads and writes return. Nobody reaches the worker any
// more.
func (w *Fake) Cut(err error) { w.end(err) }

// conn is the director's end of the connection.
type conn struct{ *Fake }

var _ link.Conn = conn{}

func (c conn) OpenControl(context.Context) (link.Control, error) { return controlStream(c), nil }

// AcceptTokens is first called when the link is up.
func (c conn) AcceptTokens(ctx context.Context) (accepted io.Reader, err error) {
	c.taken.Do(func() {
		close(c.up)
		accepted = reader{c.Fake, c.tokens}
	})
	if accepted != nil {
		return accepted, nil
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
}

func (c conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	select {
	case b := <-c.datagrams:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
}

func (c conn) DialTether(context.Context) (io.ReadWriteCloser, error) { return tether(c), nil }

func (c conn) Stats() quic.ConnectionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.path
	stats.PacketsReceived = c.packets
	return stats
}

func (c conn) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 61001} }

func (c conn) Close(code quic.ApplicationErrorCode, reason string) error {
	c.end(&quic.ApplicationError{ErrorCode: code, ErrorMessage: reason})
	c.once.Do(func() { close(c.closed) })
	return nil
}

// reader is the director's end of a stream.
type reader struct {
	worker *Fake
	from   *stream
}

func (r reader) Read(p []byte) (int, error) { return r.from.read(r.worker.ctx, p) }

// controlStream is the director's end of the control stream.
type controlStream struct{ *Fake }

func (c controlStream) Read(p []byte) (int, error) { return c.control.read(c.ctx, p) }

func (c controlStream) SetDeadline(time.Time) error { return nil }

// Write takes what the director says. Its first words are answered with a welcome.
func (c controlStream) Write(p []byte) (int, error) {
	c.mu.Lock()
	deaf := c.deaf
	c.mu.Unlock()
	if deaf {
		<-c.ctx.Done()
	}
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hello != nil {
		return c.sent.Write(p)
	}
	hello, err := wire.ReadMessage[*wirepb.LinkHello](wire.NewReader(bytes.NewReader(p), wire.MaxControl))
	if err != nil {
		return 0, err
	}
	c.hello = hello
	c.control.put(wire.Append(nil, &wirepb.LinkWelcome{Worker: c.peer.Label, Instance: c.peer.Instance, Available: true}))
	return len(p), nil
}

// tether stays open for as long as the connection does.
type tether struct{ *Fake }

func (t tether) Read(p []byte) (int, error)  { return t.tether.read(t.ctx, p) }
func (t tether) Write(p []byte) (int, error) { return len(p), nil }
func (t tether) Close() error                { return nil }
