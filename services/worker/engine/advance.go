package engine

import (
	"context"
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
