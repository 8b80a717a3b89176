package engine

import (
	"errors"
	"fmt"

	"github.com/connswap/connswap/shared/wire"
)

// Chunk is what an engine makes in one go: usually one token.
type Chunk struct {
	Text     []byte   // up to MaxText bytes; it may be empty, and end within a character
	TokenIDs []uint32 // if they are known; up to MaxTokens
	Choice   int      // which of the request's choices the text belongs to, from 0 on; up to 127
	Channel  Channel
	Data     []byte // whatever else there is to say, for the client: log probabilities; up to MaxData bytes
	Tokens   int    // how many tokens it stands for, up to MaxTokens; 0 for one, NoTokens for none
}

// NoTokens are those of a chunk that stands for none.
const NoTokens = -1

// Limits of a chunk.
const (
	MaxText   = wire.MaxChunk
	MaxData   = wire.MaxChunkData
	MaxTokens = wire.MaxChunkTokens
)

// Channel says what a text is.
type Channel uint8

// Channels.
const (
	Content   = Channel(wire.Content)
	Reasoning = Channel(wire.Reasoning)
	Refusal   = Channel(wire.Refusal)
	ToolCall  = Channel(wire.ToolCall)
)

// Count is how many tokens the chunk stands for.
func (c Chunk) Count() int {
	switch {
	case c.Tokens == 0:
		return 1
	case c.Tokens < 0:
		return 0
	}
	return c.Tokens
}

// Check returns what is beyond a limit, or nil.
func (c Chunk) Check() error {
	switch {
	case len(c.Text) > MaxText:
		return fmt.Errorf("a chunk of %d bytes, allowed are %d", len(c.Text), MaxText)
	case c.Choice < 0 || c.Choice > wire.MaxChoice:
		return fmt.Errorf("a chunk of choice %d, allowed are 0 to %d", c.Choice, wire.MaxChoice)
	case c.Channel >= Channel(wire.Channels):
		return fmt.Errorf("a chunk of channel %d, which there is not", c.Channel)
	case c.Tokens < NoTokens || c.Tokens > MaxTokens || len(c.TokenIDs) > MaxTokens:
		return fmt.Errorf("a chunk of %d tokens with %d ids, allowed are %d", c.Tokens, len(c.TokenIDs), MaxTokens)
	case len(c.Data) > MaxData:
		return fmt.Errorf("a chunk with %d bytes of data, allowed are %d", len(c.Data), MaxData)
	}
	return nil
}

// Reasons to finish. An engine may have others.
const (
	Stop          = "stop"   // the natural end of the text, or one of the request's stop strings
	Length        = "length" // MaxTokens of the request, or what the engine can hold
	ToolCalls     = "tool_calls"
	ContentFilter = "content_filter"
)

// Finish is how a text ended. It is the last error of Next: an end without one is a failure.
type Finish struct {
	Reason  string   // never empty; that of the first choice
	Reasons []string // of each choice, where there are several
	Usage   Usage
}

// Usage is what a text took, in tokens.
type Usage struct {
	Prompt     int
	Completion int // prefix included
	Cached     int // of the prompt
	Reasoning  int // of the completion
}

// Error says that the text is complete: a Finish is an error for Next only.
func (f Finish) Error() string { return "the text is complete: " + f.Reason }

// Finished returns the Finish in err's chain; false for an end that is none.
func Finished(err error) (f Finish, ok bool) {
	ok = errors.As(err, &f) && f.Reason != ""
	return f, ok
}
