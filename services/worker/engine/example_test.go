package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
)

// parrot says the words of its prompt again, one a chunk.
type parrot struct{}

func (parrot) Name() string        { return "parrot" }
func (parrot) Fingerprint() string { return "parrot 1" } // another text for the same request would have to be "parrot 2"

func (parrot) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	words := strings.Fields(req.Prompt)
	return &saying{words: words, limit: engine.NewLimit(req, engine.Count(prefix), len(words))}, nil
}

// saying goes on after as many words as were said.
type saying struct {
	words []string
	limit engine.Limit
}

func (s *saying) Next(ctx context.Context) (engine.Chunk, error) {
	if ctx.Err() != nil {
		return engine.Chunk{}, context.Cause(ctx)
	}
	said := s.limit.Made()
	if said >= len(s.words) { // more than that only after a prefix that is none of its own
		return engine.Chunk{}, s.limit.Finish(engine.Stop)
	}
	if err := s.limit.Take(1); err != nil { // as many tokens as were asked for
		return engine.Chunk{}, err
	}
	return engine.Chunk{Text: []byte(s.words[said] + " ")}, nil
}

func (s *saying) Close() error { return nil }

// say reads a generation to its end.
func say(g engine.Generation) {
	defer g.Close() //nolint:errcheck // a parrot holds nothing
	for {
		chunk, err := g.Next(context.Background())
		if finish, complete := engine.Finished(err); complete {
			fmt.Printf("(%s, %d tokens)\n", finish.Reason, finish.Usage.Completion)
			return
		}
		if err != nil {
			fmt.Println("the worker gives the stream up:", err)
			return
		}
		fmt.Printf("%s", chunk.Text)
	}
}

// An engine, what it makes of a request, and what another worker's makes of the same one after the first two chunks: the
// reader sees no seam.
func Example() {
	ctx, nothing := context.Background(), func(int, int) {}
	req := engine.Request{Prompt: "who goes there", Choices: 1}

	whole, err := parrot{}.Open(ctx, req, nil, nothing)
	if err != nil {
		fmt.Println(err)
		return
	}
	say(whole)

	prefix := []engine.Chunk{{Text: []byte("who ")}, {Text: []byte("goes ")}}
	rest, err := parrot{}.Open(ctx, req, prefix, nothing)
	if err != nil {
		fmt.Println(err)
		return
	}
	say(rest)
	// Output:
	// who goes there (stop, 3 tokens)
	// there (stop, 3 tokens)
}

// The parrot is a proper engine.
func TestParrot(t *testing.T) {
	requests := []engine.Request{{Prompt: strings.Repeat("who goes there ", 5), Choices: 1}, {Prompt: "who goes there", MaxTokens: 2, Choices: 1}}
	enginetest.Run(t, func() engine.Engine { return parrot{} }, requests...)
}
