package engine

import (
	"context"
	"errors"
	"fmt"
)

// Advancer is a Generation that gets past chunks which the stream has already by other means than making them again: an
// inference server reads them in one go. It is optional.
type Advancer interface {
	Generation
	// Advance brings the generation behind chunks, which follow what it has made so far. Where it would have made other text
	// the error is ErrDiverged. It ends with ctx, and says how far it is, as Open does.
	Advance(ctx context.Context, chunks []Chunk, progress Progress) error
}

// ErrDiverged says that a generation makes another text than the one that a stream has.
var ErrDiverged = errors.New("the text is another one")

// advanced is after how many chunks of a long way it is said how far a generation is.
const advanced = 64

// Advance brings a generation behind chunks, as its Advancer does it, or by making them again.
func Advance(ctx context.Context, g Generation, chunks []Chunk, progress Progress) error {
	if a, ok := g.(Advancer); ok {
		return a.Advance(ctx, chunks, progress)
	}
	for i, want := range chunks {
		if i%advanced == 0 {
			progress(i, len(chunks))
		}
		chunk, err := g.Next(ctx)
		if _, over := Finished(err); over {
			return fmt.Errorf("%w: it ends %d chunks earlier", ErrDiverged, len(chunks)-i)
		}
		if err != nil {
			return err
		}
		if string(chunk.Text) != string(want.Text) || chunk.Choice != want.Choice || chunk.Channel != want.Channel {
			return fmt.Errorf("%w: %q here and %q in the stream, %d chunks before its end", ErrDiverged, chunk.Text, want.Text, len(chunks)-i)
		}
	}
	return nil
}

// Prompted is a Generation that knows from its beginning how many tokens its prompt has. It is optional: with it the usage is known
// of a text, too, that the director ends, at a stop string.
type Prompted interface {
	Generation
	// PromptTokens returns what a Finish will say as Usage.Prompt.
	PromptTokens() int
}

// Answering is an Engine that answers other requests than for text, too, such as for embeddings. Such an answer is one JSON document,
// which is the content of its generation, in as many chunks as it takes, with the reason Stop. It is optional.
type Answering interface {
	Engine
	// Answers returns which APIs it answers, as Request.API names them: embeddings, moderations, rerank, score, tokenize, detokenize.
	Answers() []string
}
