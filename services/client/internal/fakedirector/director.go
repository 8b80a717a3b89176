// Package fakedirector is a director for tests of the client. It says what the test has it say, be it allowed or
// not.
package fakedirector

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Director is one node. Set its fields before Start.
type Director struct {
	Network quicnet.Network
	Addr    string // to listen on
	TLS     identity.Source
	ALPN    string          // wire.ALPNClient if empty
	Clients []identity.Role // that may come, and have to show a certificate; anybody may if it is nil

	// Key is what clients have to show, each time that they greet; they need none if it is empty.
	Key string

	// Welcome answers a client's greeting; Default is used if it is nil.
	Welcome wire.Message
	// Greet, if set, is called instead of sending Welcome.
	Greet func(conn *quic.Conn, hello *quic.Stream)
	// Play is called for each stream that a client opens. The stream ends with it.
	Play func(s *Stream)
	// Raw, if set, is called instead of reading the request and calling Play.
	Raw func(s *Stream)
	// MaxStreams at once; 100 if zero.
	MaxStreams int
	// Conf is used instead of what serves so many streams, if set.
	Conf *quic.Config

	// Silent has it answer no pings, as directors did not always.
	Silent bool

	// ResumeWait has clients told that they may come back for so long; zero for not at all. Return, if set, is what those
	// who do are told, instead of being welcomed; Resume the same for a stream that they want to take up.
	ResumeWait     time.Duration
	Return, Resume *wire.Error

	mu      *sync.Mutex
	streams map[uint64]*Stream // that may be taken up

	// Conns has every connection that was accepted.
	Conns chan *quic.Conn
}

// Welcome is what a director says that is content.
func Welcome() *wirepb.Welcome {
	return &wirepb.Welcome{Version: wire.Version, ConnectionId: "conn-1", DirectorId: "director-1"}
}

// Start serves until the test ends.
func (d *Director) Start(t testing.TB) *Director {
	t.Helper()
	if d.ALPN == "" {
		d.ALPN = wire.ALPNClient
	}
	if d.MaxStreams == 0 {
		d.MaxStreams = 100
	}
	d.Conns = make(chan *quic.Conn, 100)
	d.mu, d.streams = &sync.Mutex{}, map[uint64]*Stream{}
	accept := map[string][]identity.Role{}
	if d.Clients != nil {
		accept[d.ALPN] = d.Clients
	}
	tls := identity.ServerTLS(d.TLS, []string{d.ALPN}, accept)
	if d.Conf == nil {
		d.Conf = quicnet.ServeClientsConfig(d.MaxStreams)
	}
	l, err := quicnet.Listen(d.Network, d.Addr, tls, d.Conf)
	if err != nil {
		t.Fatal(err)
	}
	d.Addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { d.accept(ctx, l) })
	if !d.Silent {
		serving.Go(func() { _ = l.AnswerPings(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		_ = l.Close()
	})
	return d
}

func (d *Director) accept(ctx context.Context, l *quicnet.Listener) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return
		}
		d.Conns <- conn
		serving.Go(func() { d.serve(ctx, conn) })
	}
}

func (d *Director) serve(ctx context.Context, conn *quic.Conn) {
	var playing sync.WaitGroup
	defer playing.Wait()
	defer context.AfterFunc(ctx, func() { _ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) })()
	hello, err := conn.AcceptStream(ctx)
	if err != nil {
		return
	}
	greeting, err := wire.ReadMessage[*wirepb.ClientHello](wire.NewReader(hello, wire.MaxControl))
	if err != nil {
		return
	}
	switch {
	case greeting.GetKey() != d.Key:
		_, _ = hello.Write(wire.Append(nil, wire.Errorf(wire.CodeUnauthorized, "that is not the key").Proto()))
	case greeting.GetReturn() != nil && d.Return != nil:
		_, _ = hello.Write(wire.Append(nil, d.Return.Proto()))
	default:
		d.greet(conn, hello)
	}
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		playing.Go(func() { d.play(conn, stream) })
	}
}

func (d *Director) greet(conn *quic.Conn, hello *quic.Stream) {
	switch {
	case d.Greet != nil:
		d.Greet(conn, hello)
	case d.Welcome != nil:
		_, _ = hello.Write(wire.Append(nil, d.Welcome))
	default:
		welcome := Welcome()
		if d.ResumeWait > 0 {
			welcome.Secret, welcome.ResumeWaitMs = []byte("secret"), uint64(d.ResumeWait.Milliseconds())
		}
		_, _ = hello.Write(wire.Append(nil, welcome))
	}
}

func (d *Director) play(conn *quic.Conn, stream *quic.Stream) {
	s := &Stream{Stream: stream, Conn: conn, resumed: make(chan *taken), over: make(chan struct{})}
	defer func() {
		close(s.over)
		_ = s.Close() // the client may be gone
		// Where the client's end of the stream comes in a later packet than its request, nobody has read it: QUIC would
		// count the stream as open for ever, and give its place to no other.
		s.CancelRead(wire.StreamOk)
	}()
	if d.Raw != nil {
		d.Raw(s)
		return
	}
	m, err := wire.ReadMessage[wire.Message](wire.NewReader(stream, wire.MaxPrompt+wire.MaxControl))
	switch m := m.(type) {
	case *wirepb.Generate:
		s.Request = m.GetRequest()
		d.mu.Lock()
		d.streams[m.GetStream()] = s
		d.mu.Unlock()
		d.Play(s)
	case *wirepb.Resume:
		d.takeUp(s, m)
	default:
		_ = err // the client has gone
	}
}

// takeUp has a stream that was broken go on over another one.
func (d *Director) takeUp(s *Stream, m *wirepb.Resume) {
	d.mu.Lock()
	broken := d.streams[m.GetStream()]
	d.mu.Unlock()
	switch {
	case d.Resume != nil:
		s.Send(d.Resume.Proto())
	case broken == nil:
		s.Send(wire.Errorf(wire.CodeResumeStream, "no such stream").Proto())
	default:
		select {
		case broken.resumed <- &taken{s, m}:
			<-broken.over
		case <-broken.over:
			s.Send(wire.Errorf(wire.CodeResumeStream, "it is over").Proto())
		case <-s.Conn.Context().Done():
		}
	}
}

// Stream is a client's stream, and what was sent on it.
type Stream struct {
	*quic.Stream
	Conn    *quic.Conn
	Request *wirepb.Request

	resumed chan *taken
	over    chan struct{} // closed at its end

	digest session.Rolling
	tokens uint64
	swaps  uint32
}

// taken is a stream that is to go on over another one.
type taken struct {
	*Stream
	m *wirepb.Resume
}

// Break ends the client's connection with an error, and waits until the client has come back for the stream. It returns what
// the client said it had.
func (s *Stream) Break(code quic.ApplicationErrorCode) *wirepb.Resume {
	_ = s.Conn.CloseWithError(code, "connection_lost: nothing came from this client for 6s")
	next := <-s.resumed
	s.Stream, s.Conn = next.Stream.Stream, next.Conn
	s.Send(&wirepb.Resumed{Sequence: s.tokens})
	return next.m
}

// Send sends messages. What cannot be sent the client notices.
func (s *Stream) Send(messages ...wire.Message) {
	for _, m := range messages {
		if _, ok := m.(*wirepb.Swapped); ok {
			s.swaps++
		}
		_, _ = s.Write(wire.Append(nil, m))
	}
}

// Assign assigns worker-a in epoch 1.
func (s *Stream) Assign() {
	s.Send(&wirepb.Assigned{Worker: "worker-a", Epoch: 1, Continuity: wire.ContinuityExact})
}

// Say sends the next tokens, as they should be.
func (s *Stream) Say(epoch uint64, texts ...string) {
	for _, text := range texts {
		s.Token(epoch, s.tokens+1, text)
	}
}

// Token sends a token.
func (s *Stream) Token(epoch, sequence uint64, text string) {
	s.tokens++
	s.digest.Add(wire.Chunk{Text: []byte(text)})
	_, _ = s.Write(wire.AppendChunk(nil, wire.Chunk{Epoch: epoch, Sequence: sequence, Text: []byte(text)}))
}

// Swap goes from worker-a to worker-b in epoch 2, after the tokens sent.
func (s *Stream) Swap() {
	s.Send(&wirepb.Swapped{
		Continuity: wire.ContinuityExact,
		FromWorker: "worker-a", ToWorker: "worker-b", Kind: "failover", Cause: "tether", Epoch: 2, LastSequence: s.tokens,
	})
}

// Finish returns a Done that fits what was sent.
func (s *Stream) Finish() *wirepb.Done {
	digest := s.digest.Digest()
	return &wirepb.Done{Continuity: wire.ContinuityExact, FinishReason: "length", Tokens: s.tokens, Swaps: s.swaps, Digest: digest[:]}
}

// Sent is how many tokens were sent.
func (s *Stream) Sent() uint64 { return s.tokens }
