package fakedirector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Link is a director's end of a link. What the worker sends is kept in the order of arrival; Progress is only
// counted.
type Link struct {
	Conn     *quicnet.Conn
	Control  *quic.Stream
	Progress atomic.Uint64

	events  chan any      // wire messages, and tokens as wire.Chunk
	ended   chan struct{} // closed when the worker has ended the control stream
	running sync.WaitGroup
}

// directors counts the processes that Hello stands for.
var directors atomic.Uint64

// Hello is the LinkHello of a director that was started just now.
func Hello() *wirepb.LinkHello {
	return &wirepb.LinkHello{
		Version: wire.NewestPeerVersion, DirectorId: "director-1", ProgressIntervalMs: 100, TokenStreams: 2,
		Tether: "0123456789abcdef", DirectorInstance: fmt.Sprint("instance-", directors.Add(1)),
	}
}

// DialAs opens a QUIC connection to the worker at addr with the certificate of a role.
func (w *World) DialAs(t *testing.T, role identity.Role, from quicnet.Network, addr string) (*quicnet.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	tlsConf := identity.ClientTLS(w.TLS[role], wire.ALPNLink, identity.Worker)
	return quicnet.Dial(ctx, from, addr, tlsConf, quicnet.LinkConfig(100*time.Millisecond))
}

// Dial opens a link and sends hello. The test ends it with Close.
func (w *World) Dial(t *testing.T, from quicnet.Network, addr string, hello *wirepb.LinkHello) *Link {
	t.Helper()
	conn, err := w.DialAs(t, identity.Director, from, addr)
	if err != nil {
		t.Fatalf("dialling the worker: %v", err)
	}
	control, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatalf("opening the control stream: %v", err)
	}
	l := &Link{Conn: conn, Control: control, events: make(chan any, 1<<16), ended: make(chan struct{})}
	l.running.Go(func() {
		l.read(control)
		close(l.ended)
	})
	l.running.Go(l.accept)
	l.running.Go(l.count)
	l.Send(t, hello)
	return l
}

// Open opens a link, greets, and returns the worker's welcome.
func (w *World) Open(t *testing.T, from quicnet.Network, addr string) (*Link, *wirepb.LinkWelcome) {
	t.Helper()
	l := w.Dial(t, from, addr, Hello())
	return l, Next[*wirepb.LinkWelcome](t, l)
}

// Tether opens the TCP connection of a link and sends its id.
func (w *World) Tether(t *testing.T, from quicnet.Network, addr, line string) net.Conn {
	t.Helper()
	conn, err := from.DialStream(t.Context(), addr)
	if err != nil {
		t.Fatalf("dialling the tether: %v", err)
	}
	if _, err := conn.Write([]byte(line)); err != nil {
		t.Fatalf("writing to the tether: %v", err)
	}
	return conn
}

// Close closes the link, as a director that shuts down.
func (l *Link) Close() {
	_ = l.Conn.Close(wire.QUICShutdown, "")
	l.running.Wait()
}

func (l *Link) accept() {
	for {
		stream, err := l.Conn.AcceptUniStream(context.Background()) // ends with the connection
		if err != nil {
			return
		}
		l.running.Go(func() { l.read(stream) })
	}
}

// count counts Progress, which comes as datagrams.
func (l *Link) count() {
	for {
		if _, err := l.Conn.ReceiveDatagram(context.Background()); err != nil { // ends with the connection
			return
		}
		l.Progress.Add(1)
	}
}

func (l *Link) read(stream interface{ Read(b []byte) (int, error) }) {
	frames := wire.NewReader(stream, wire.MaxControl)
	for {
		f, err := frames.Next()
		if err != nil {
			return
		}
		event, err := parse(f)
		if err != nil {
			event = fmt.Errorf("from the worker: %w", err)
		}
		l.events <- event
	}
}

func parse(f wire.Frame) (any, error) {
	if !f.IsChunk() {
		return wire.Decode(f)
	}
	token, err := wire.ParseLinkChunk(f)
	token.Text = bytes.Clone(token.Text)
	return token, err
}

// Send sends messages on the control stream.
func (l *Link) Send(t *testing.T, messages ...wire.Message) {
	t.Helper()
	var b []byte
	for _, m := range messages {
		b = wire.Append(b, m)
	}
	l.SendRaw(t, b)
}

// SendRaw sends bytes on the control stream.
func (l *Link) SendRaw(t *testing.T, b []byte) {
	t.Helper()
	if _, err := l.Control.Write(b); err != nil {
		t.Fatalf("writing to the worker: %v", err)
	}
}

// Next returns what the worker sent next, which has to be an E.
func Next[E any](t *testing.T, l *Link) E {
	t.Helper()
	timeout := time.NewTimer(eventTimeout)
	defer timeout.Stop()
	var want E
	select {
	case event := <-l.events:
		got, ok := event.(E)
		if !ok {
			t.Fatalf("got %T (%v), want %T", event, event, want)
		}
		return got
	case <-timeout.C:
		t.Fatalf("nothing came, want %T", want)
	}
	return want
}

// Remaining returns what the worker sends within d.
func (l *Link) Remaining(d time.Duration) []any {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	var remaining []any
	for {
		select {
		case event := <-l.events:
			remaining = append(remaining, event)
		case <-timeout.C:
			return remaining
		}
	}
}

// Ended waits until the worker has ended the control stream, which it does last.
func (l *Link) Ended(t *testing.T) {
	t.Helper()
	timeout := time.NewTimer(eventTimeout)
	defer timeout.Stop()
	select {
	case <-l.ended:
	case <-timeout.C:
		t.Fatal("the worker does not end the control stream")
	}
}

// Lost waits until the worker has closed the connection, and returns how.
func (l *Link) Lost(t *testing.T) *quic.ApplicationError {
	t.Helper()
	timeout := time.NewTimer(eventTimeout)
	defer timeout.Stop()
	select {
	case <-l.Conn.Context().Done():
	case <-timeout.C:
		t.Fatal("the worker keeps the link")
	}
	var closed *quic.ApplicationError
	if err := context.Cause(l.Conn.Context()); !errors.As(err, &closed) || !closed.Remote {
		t.Fatalf("the link ended with %v, want it closed by the worker", err)
	}
	return closed
}
