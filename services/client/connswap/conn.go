package connswap

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Conn is a connection to a director. It is safe for concurrent use.
type Conn struct {
	quic     *quicnet.Conn
	watch    *quicnet.Watch // of the director, while streams are open
	prober   *prober
	hello    *quic.Stream // open for as long as the connection is
	id       string
	director string
}

// ID is the connection's id (conn-…), constant for its life.
func (c *Conn) ID() string { return c.id }

// Director is the id of the director at the other end.
func (c *Conn) Director() string { return c.director }

// RemoteAddr is the address of the director, "ip:port".
func (c *Conn) RemoteAddr() string { return c.quic.RemoteAddr().String() }

// Proof reads from the connection, as it is now, what identifies it.
func (c *Conn) Proof() (Proof, error) { return quicnet.ReadProof(c.quic.Conn) }

// Close ends the connection and all its streams, and tells the director, which stops their workers. It returns
// once that is sent.
func (c *Conn) Close() error {
	if err := c.quic.Close(wire.QUICOk, string(CodeCancelled)); err != nil {
		return fmt.Errorf("closing the connection: %w", err)
	}
	return nil
}

// Request is what shall be generated.
type Request struct {
	Prompt    string
	MaxTokens uint32 // 0 for as many as the director allows
	Seed      uint64 // the same prompt and seed give the same text
	Priority  uint8  // of streams that are as old as each other, the higher one is moved first
}

// Generate opens a stream and sends the request. It waits where the director's limit of streams per connection
// is reached. What the director thinks of the request is told by the stream.
//
// When ctx ends, even after Generate has returned, the stream is cancelled. A stream has to be read to its end,
// closed, or cancelled so.
func (c *Conn) Generate(ctx context.Context, r Request) (*Stream, error) {
	if !utf8.ValidString(r.Prompt) {
		return nil, wire.Errorf(CodeInvalid, "the prompt is not valid UTF-8")
	}
	if len(r.Prompt) > wire.MaxPrompt {
		return nil, wire.Errorf(CodeInvalid, "the prompt has %d bytes, allowed are %d", len(r.Prompt), wire.MaxPrompt)
	}
	qs, err := c.quic.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a stream: %w", explainIn(ctx, err))
	}
	s := newStream(ctx, c, qs)
	frame := wire.Append(nil, &wirepb.Generate{Request: &wirepb.Request{
		Prompt: r.Prompt, MaxTokens: r.MaxTokens, Seed: r.Seed, Priority: uint32(r.Priority),
	}})
	if err := s.send(frame); err != nil {
		return nil, fmt.Errorf("sending the request: %w", err)
	}
	return s, nil
}

// helloTimeout bounds the time a director takes to answer on an open connection.
const helloTimeout = 5 * time.Second

// greet exchanges ClientHello and Welcome.
func (c *Conn) greet(ctx context.Context, name string) error {
	var err error
	if c.hello, err = c.quic.OpenStreamSync(ctx); err != nil {
		return err
	}
	deadline := time.Now().Add(helloTimeout)
	if own, ok := ctx.Deadline(); ok && own.Before(deadline) {
		deadline = own
	}
	if err := c.hello.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.hello.CancelRead(wire.StreamCancel) })()
	hello := wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Client: wire.Text(name)})
	if _, err := c.hello.Write(hello); err != nil {
		return err
	}
	welcome, err := wire.ReadMessage[*wirepb.Welcome](wire.NewReader(c.hello, frameLimit))
	if err != nil {
		return err
	}
	if v := welcome.GetVersion(); v != wire.Version {
		return wire.Errorf(CodeVersion, "the director speaks version %d, this client %d", v, wire.Version)
	}
	if welcome.GetConnectionId() == "" {
		return broken(ErrFrame, "a welcome without a connection id")
	}
	c.id, c.director = welcome.GetConnectionId(), welcome.GetDirectorId()
	return c.hello.SetDeadline(time.Time{})
}
