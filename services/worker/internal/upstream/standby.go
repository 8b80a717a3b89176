package upstream

import (
	"context"
	"slices"

	"github.com/connswap/connswap/services/worker/engine"
)

// standby is what a generation has that stands by for another worker's stream, and goes on with it only when that is its own.
type standby struct {
	prefix []engine.Chunk // of the stream so far
}

// standBy gets ready to take a stream over. Where that takes no more than reading what there is the server does so, and the making waits
// for the first Next; else the answer is made again from now on.
func (g *generation) standBy(ctx context.Context, prefix []engine.Chunk, waiting *ticks) error {
	resumed, replay := g.likeliest(prefix)
	g.resumed = resumed
	if replay {
		return g.start(ctx, g.whole(ctx, prefix), prefix, readAhead, waiting)
	}
	g.standby = &standby{prefix: slices.Clip(prefix)}
	err := g.warm(ctx, prefix)
	if refused(err) {
		return nil // it takes longer then
	}
	g.reportFault(err)
	return failure(err, true, false)
}

// likeliest returns how the stream will be gone on with behind a prefix, and more of what that is.
func (g *generation) likeliest(prefix []engine.Chunk) (class engine.Continuity, replay bool) {
	all := g.rungs(prefix)
	all = all[min(g.req.Tries/triesPerRung, len(all)):]
	if len(all) == 0 {
		return engine.None, false // Next says so
	}
	return all[0].class, all[0].replay
}

// warm has the server read what the stream has so far.
func (g *generation) warm(ctx context.Context, prefix []engine.Chunk) error {
	call := g.call
	switch {
	case g.byIDs() == "" && told(prefix):
		prompt, err := g.tokenize(ctx)
		if err != nil {
			return err
		}
		call.IDs = idsOf(prompt, prefix)
	case g.byText() == "" && plainly(prefix):
		text, whole := textOf(prefix)
		call.Text = text[:whole]
	}
	call.MaxTokens = max(1, call.MaxTokens)
	return g.server.Warm(ctx, call)
}

// takeOver goes on with the stream, if the generation has stood by for that.
func (g *generation) takeOver(ctx context.Context) error {
	if g.standby == nil {
		return nil
	}
	waiting := &ticks{progress: func(int, int) {}}
	defer waiting.stop()
	var err error
	if prefix := g.standby.prefix; len(prefix) > 0 {
		err = g.resume(ctx, prefix, waiting)
	} else {
		err = g.begin(ctx, waiting)
	}
	if err != nil && ctx.Err() != nil {
		return err // it may be asked again
	}
	g.standby = nil
	if err != nil {
		g.abandon()
		g.compare, g.end = &comparer{}, err
	}
	return nil
}

// Advance implements engine.Advancer.
func (g *generation) Advance(ctx context.Context, chunks []engine.Chunk, progress engine.Progress) error {
	if g.standby != nil {
		g.standby.prefix = append(g.standby.prefix, chunks...)
		return g.rethink(ctx, progress)
	}
	g.count += engine.Count(chunks)
	if err := g.compare.extend(chunks); err != nil {
		return err
	}
	return g.catchUp(ctx, progress)
}

// rethink makes the answer again from now on, where the stream has become one that cannot be gone on with in another way.
func (g *generation) rethink(ctx context.Context, progress engine.Progress) error {
	resumed, replay := g.likeliest(g.standby.prefix)
	if !replay {
		return nil
	}
	prefix := g.standby.prefix
	g.standby, g.resumed = nil, resumed
	waiting := &ticks{progress: progress}
	waiting.start()
	defer waiting.stop()
	return g.start(ctx, g.whole(ctx, prefix), prefix, readAhead, waiting)
}
