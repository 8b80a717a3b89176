package connswap

import (
	"time"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
)

// Event is something that happened on a stream: one of [Assigned], [Waiting], [Recovering], [Token],
// [Swapped], [Resumed] and [Done].
type Event interface{ event() }

// Assigned says which worker serves the stream at first.
type Assigned struct {
	Worker     string
	Epoch      uint64
	Continuity string // that is promised for the stream where the worker is lost: none, text, verified or exact
}

// Waiting says that no worker can serve the stream right now. It stays open.
type Waiting struct {
	Reason  string
	Timeout time.Duration // after this long without a worker the stream ends in an error
}

// Token is what an engine made in one go: most often one token. Sequence is 1, 2, 3 … within the stream, whoever makes
// it.
type Token struct {
	Sequence uint64
	Epoch    uint64
	Worker   string
	Text     string // as sent; it may be empty, and end within a character

	Choice   int      // which of the request's choices the text belongs to, from 0 on
	Channel  Channel  // what the text is
	Tokens   int      // how many tokens it stands for
	TokenIDs []uint32 // if the engine says them
	Data     []byte   // what else the engine says, as it does
}

// Channel says what a text is.
type Channel = wire.Channel

// Channels.
const (
	Content   = wire.Content
	Reasoning = wire.Reasoning
	Refusal   = wire.Refusal
	ToolCall  = wire.ToolCall
)

// Recovering says how far the next worker's engine is on its way to where the stream is, where that takes a while: At of a
// number of its own.
type Recovering struct {
	Worker string
	At, Of uint64
}

// Usage is what a stream took, in tokens, as its engine says.
type Usage struct {
	Prompt     uint64
	Completion uint64
	Cached     uint64 // of the prompt
	Reasoning  uint64 // of the completion
}

// Swapped says that another worker goes on. It comes just before that worker's first token.
type Swapped struct {
	From, To string // workers
	Kind     string // failover or planned
	Cause    string // why From was left
	Epoch    uint64 // of To
	Sequence uint64 // of the last token of From

	// Continuity is how To goes on: exact, with the text that would have been; verified, behind text that it has made again; or text.
	Continuity string

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
	FinishReason string // as the engine said it: stop, length, tool_calls …
	Tokens       uint64 // sequence of the last one; checked
	Swaps        int    // as the director counted them
	Continuity   string // the weakest of those swaps; exact where there were none
	Digest       Digest // over all texts; checked

	FinishReasons []string // of each choice, where there are several
	Usage         *Usage   // nil where nobody knows it
}

// failed is the director's last frame of a stream that could not complete. Readers see the error instead.
type failed struct{ err *Error }

// tokenRead says that the ledger has the next token. Whoever reads tokens only gets them without an allocation for an Event.
type tokenRead struct{}

func (Assigned) event()   {}
func (Waiting) event()    {}
func (Token) event()      {}
func (Swapped) event()    {}
func (Resumed) event()    {}
func (Recovering) event() {}
func (Done) event()       {}
func (failed) event()     {}

func (tokenRead) event() {}

// Proof identifies one QUIC connection beyond doubt: equal proofs, same connection.
type Proof = quicnet.Proof

// Digest is that over the texts of a stream.
type Digest = session.Digest
