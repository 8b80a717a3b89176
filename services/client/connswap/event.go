package connswap

import (
	"time"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
)

// Event is something that happened on a stream: one of [Assigned], [Waiting], [Token], [Swapped],
// [Resumed] and [Done].
type Event interface{ event() }

// Assigned says which worker serves the stream at first.
type Assigned struct {
	Worker string
	Epoch  uint64
}

// Waiting says that no worker can serve the stream right now. It stays open.
type Waiting struct {
	Reason  string
	Timeout time.Duration // after this long without a worker the stream ends in an error
}

// Token is one token. Sequence is 1, 2, 3 … within the stream, whoever makes it.
type Token struct {
	Sequence uint64
	Epoch    uint64
	Worker   string
	Text     string // as sent; a token may end within a character
}

// Swapped says that another worker goes on. It comes just before that worker's first token.
type Swapped struct {
	From, To string // workers
	Kind     string // failover or planned
	Cause    string // why From was left
	Epoch    uint64 // of To
	Sequence uint64 // of the last token of From

	// Gap is the time between the last token before the swap and the first one after it, as this stream's
	// reader saw them. It is zero if there was no token before it, or none after it.
	Gap time.Duration
	// Interval is the stream's usual time between two tokens before the swap: the median of the last ones.
	Interval time.Duration

	Proof Proof // read again when the first token after the swap had arrived
}

// Resumed says that the connection was lost, and that the stream goes on over another QUIC connection, at the next token.
type Resumed struct {
	Sequence uint64 // of the last token before
	Cause    error  // how the connection was lost

	// Gap is the time between the last token and this moment, as this stream's reader saw it; zero if there was no token.
	Gap time.Duration
	// Interval is the stream's usual time between two tokens before.
	Interval time.Duration

	Proof Proof // of the QUIC connection that the stream goes on over
}

// Done says that the stream is complete. It is the last event.
type Done struct {
	FinishReason string // stop or length
	Tokens       uint64 // how many; checked
	Swaps        int    // as the director counted them
	Digest       Digest // over all tokens; checked
}

// failed is the director's last frame of a stream that could not complete. Readers see the error instead.
type failed struct{ err *Error }

// tokenRead says that the ledger has the next token. Whoever reads tokens only gets them without an allocation for an Event.
type tokenRead struct{}

func (Assigned) event() {}
func (Waiting) event()  {}
func (Token) event()    {}
func (Swapped) event()  {}
func (Resumed) event()  {}
func (Done) event()     {}
func (failed) event()   {}

func (tokenRead) event() {}

// Proof identifies one QUIC connection beyond doubt: equal proofs, same connection.
type Proof = quicnet.Proof

// Digest is a rolling digest over the tokens of a stream.
type Digest = session.Digest
