package connswap

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Conn is a connection to a director. It is safe for concurrent use.
//
// When the QUIC connection that carries it is lost (the network changed or was cut, the machine slept) while streams are
// open, it dials the director again, for as long as that keeps them, and its streams go on where their readers stand:
// see [Resumed]. The id stays.
type Conn struct {
	target   string
	opts     Options
	id       string
	director string
	secret   []byte        // shows that this client is the one that comes back; empty if it may not
	wait     time.Duration // that the director keeps the streams of a client that is lost

	ctx    context.Context // until Close
	cancel context.CancelFunc

	reviving chan struct{} // capacity 1: has an entry while somebody looks for another carrier, who owns these:
	lostAt   time.Time     // since when there is none; zero while there is one
	revived  time.Time     // when the last one was found
	backoff  retry.Backoff // where they are lost again and again

	mu      sync.Mutex
	carrier *carrier
	closed  bool
	newest  uint64 // number of the newest stream
	open    int    // streams
}

// newConn returns the connection that a carrier carries, once the director has welcomed it.
func newConn(ctx context.Context, target string, opts Options, c *carrier) (*Conn, error) {
	err := c.hello(ctx, &wirepb.ClientHello{Version: wire.Version, Client: wire.Text(opts.Name), Resumable: true, Key: opts.Key})
	if err != nil {
		return nil, err
	}
	welcome, err := c.greeted(ctx)
	if err != nil {
		return nil, err
	}
	conn := &Conn{
		target: target, opts: opts, carrier: c, reviving: make(chan struct{}, 1),
		backoff: retry.Backoff{First: firstPause, Most: often},
		id:      welcome.GetConnectionId(), director: welcome.GetDirectorId(), secret: welcome.GetSecret(),
		wait: milliseconds(welcome.GetResumeWaitMs()),
	}
	conn.ctx, conn.cancel = context.WithCancel(context.Background())
	return conn, nil
}

// ID is the connection's id (conn-…), constant for its life.
func (c *Conn) ID() string { return c.id }

// Director is the id of the director at the other end.
func (c *Conn) Director() string { return c.director }

// RemoteAddr is the address of the director, "ip:port".
func (c *Conn) RemoteAddr() string { return c.now().quic.RemoteAddr().String() }

// Proof reads from the QUIC connection, as it is now, what identifies it. It stays the same whatever happens to workers;
// after a [Resumed] it is that of another QUIC connection.
func (c *Conn) Proof() (Proof, error) { return quicnet.ReadProof(c.now().quic.Conn) }

// now returns what carries the connection.
func (c *Conn) now() *carrier {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.carrier
}

// Close ends the connection and all its streams, and tells the director, which stops their workers. It returns
// once that is sent.
func (c *Conn) Close() error {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	carrier := c.carrier
	c.mu.Unlock()
	if err := carrier.Close(); err != nil {
		return fmt.Errorf("closing the connection: %w", err)
	}
	return nil
}

// resumable returns why a carrier was lost, if streams may go on over another one; else nil.
func (c *Conn) resumable(lost *carrier) error {
	if len(c.secret) == 0 || c.wait <= 0 {
		return nil
	}
	return lost.lost()
}

// Request is what shall be generated.
type Request struct {
	Model     string // empty for the fleet's default
	Prompt    string
	Body      []byte   // for the engine, if there is more than a prompt; it gets it as it is
	MaxTokens uint32   // of each choice; 0 for as many as the director allows
	Stop      []string // the text ends before the first of these
	Choices   uint32   // how many texts; 0 for one
	Seed      uint64   // the same prompt and seed give the same text
	Priority  uint8    // of streams that are as old as each other, the higher one is moved first

	// Continuity is what has to be promised at least for the case that the stream's worker is lost: text, verified or exact; empty for
	// whatever is. Only with text another worker may go on with a text that could have been another one.
	Continuity string
	// Standby has another worker make the text, too, and go on at once where the first one is lost. It takes as much again.
	Standby bool
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
	continuity, ok := wire.ParseContinuity(cmp.Or(r.Continuity, "none"))
	if !ok {
		return nil, wire.Errorf(CodeInvalid, "the continuity is %q; give text, verified or exact, or nothing", r.Continuity)
	}
	request := &wirepb.Request{
		Model: r.Model, Prompt: r.Prompt, Body: r.Body, MaxTokens: r.MaxTokens, Stop: r.Stop, Choices: r.Choices, Seed: r.Seed,
		Priority: uint32(r.Priority), Continuity: continuity, Standby: r.Standby,
	}
	carrier, number, used := c.begin()
	s := newStream(ctx, c, number, request)
	err := s.ask(carrier)
	if err != nil && used && s.lost(carrier, err) != nil {
		if carrier, err = c.revive(s.ctx, carrier); err == nil {
			err = s.takeUp(carrier) // the others will be there, and this one can be
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sending the request: %w", s.fail(err))
	}
	return s, nil
}

// begin draws a number for a new stream, and reports whether there are others. The stream's end has to follow.
func (c *Conn) begin() (carrier *carrier, number uint64, used bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest++
	c.open++
	return c.carrier, c.newest, c.open > 1
}

// end says that a stream is over.
func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
}

// milliseconds returns a duration that a director says, a year at most.
func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(maxWaiting/time.Millisecond))) * time.Millisecond
}
