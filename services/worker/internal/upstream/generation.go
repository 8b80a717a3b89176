package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// generation is an engine.Generation; it also is an engine.Prompted, an engine.Pledging and an engine.Advancer.
type generation struct {
	*job
	promise engine.Pledge
	resumed engine.Continuity
	feed    *feed // nil before the first attempt
	attempt attempt
	compare *comparer
	taken   int   // tokens of the answer so far
	end     error // how it ended, once that is read

	standby *standby // until the first Next, where the making waits for that

	count  int            // tokens of the stream, with those that were handed out
	held   *engine.Chunk  // one with which there would be as many tokens as were asked for: it waits for the end to come
	chunks []engine.Chunk // to be handed out
}

func newGeneration(j *job) *generation {
	return &generation{job: j, resumed: engine.Exact}
}

// open gets the generation ready to go on behind a prefix.
func (g *generation) open(ctx context.Context, prefix []engine.Chunk, waiting *ticks) error {
	promise, why := g.pledge()
	g.promise = promise
	switch {
	case g.shape == nil:
		return g.answer(ctx, prefix, waiting)
	case g.req.Role == engine.StandingBy:
		return g.standBy(ctx, prefix, waiting)
	case g.req.Role == engine.RunningAlong:
		g.resumed = engine.Verified
		return g.start(ctx, g.whole(ctx, prefix), prefix, alongAhead, waiting)
	case len(prefix) > 0:
		return g.resume(ctx, prefix, waiting)
	case promise.Continuity < g.req.Continuity:
		return unavailable(g.req.Continuity, promise.Continuity, why)
	}
	return g.begin(ctx, waiting)
}

// begin begins a text.
func (g *generation) begin(ctx context.Context, waiting *ticks) error {
	return g.start(ctx, g.whole(ctx, nil), nil, readAhead, waiting)
}

// start asks the server, and returns once it has answered, and has made again what is to be compared.
func (g *generation) start(ctx context.Context, a attempt, prefix []engine.Chunk, ahead int, waiting *ticks) error {
	g.abandon()
	g.attempt, g.compare, g.count, g.taken = a, &comparer{strict: a.strict}, engine.Count(prefix), 0
	if err := g.compare.extend(a.expect); err != nil {
		return err
	}
	g.feed = newFeed(ctx, g.server, a.call, ahead, g.options.Report)
	d, err := g.feed.next(ctx)
	waiting.stop()
	if _, complete := engine.Finished(err); err != nil && !complete {
		return failure(err, true, len(prefix) == 0)
	}
	if err := g.took(d, err); err != nil {
		return err
	}
	return g.catchUp(ctx, waiting.progress)
}

// catchUp reads until all that the stream has was made again.
func (g *generation) catchUp(ctx context.Context, progress engine.Progress) error {
	for !g.compare.matched() {
		progress(g.compare.progress())
		if g.end != nil {
			return g.end
		}
		if err := g.read(ctx); err != nil {
			return err
		}
	}
	return nil
}

// read reads the next piece of the answer, or how it ended. The error is that of the context; any other end is the generation's.
func (g *generation) read(ctx context.Context) error {
	d, err := g.feed.next(ctx)
	if err != nil && ctx.Err() != nil {
		return err
	}
	return g.took(d, err)
}

// took takes what was read. The error is a divergence.
func (g *generation) took(d api.Delta, err error) error {
	f, complete := engine.Finished(err)
	switch {
	case complete:
		err = g.compare.ended()
		g.end = err
		if err == nil {
			g.end = g.finish(f)
		}
	case err != nil:
		if g.end = failure(err, false, false); g.promise.Continuity < engine.Verified { // nobody could say it better
			g.guess(err)
		}
		return nil
	case d.Choice < 0 || d.Choice > wire.MaxChoice:
		g.end = fmt.Errorf("the server made a piece of choice %d", d.Choice)
		return nil
	default:
		g.taken += d.Tokens
		if err = g.compare.take(d); err != nil {
			g.end = err
		}
	}
	return err
}

// guess takes a text for complete whose usage did not come.
func (g *generation) guess(err error) {
	var fault *api.Error
	if errors.As(err, &fault) && fault.Complete != nil && g.compare.ended() == nil {
		g.end = g.finish(*fault.Complete)
	}
}

// finish returns how the whole text ended.
func (g *generation) finish(f engine.Finish) engine.Finish {
	u := &f.Usage
	u.Prompt = max(0, u.Prompt-g.attempt.within)
	if g.attempt.prompt > 0 {
		u.Prompt = g.attempt.prompt
	}
	if u.Completion == 0 { // it does not say
		u.Completion = g.taken
	}
	u.Completion += g.attempt.behind
	u.Cached, u.Reasoning = min(u.Cached, u.Prompt), min(u.Reasoning, u.Completion)
	if most := g.most(); most > 0 {
		u.Completion = min(u.Completion, most)
	}
	return f
}

// Next implements engine.Generation.
func (g *generation) Next(ctx context.Context) (engine.Chunk, error) {
	if ctx.Err() != nil {
		return engine.Chunk{}, context.Cause(ctx)
	}
	if err := g.takeOver(ctx); err != nil {
		return engine.Chunk{}, err
	}
	for {
		if len(g.chunks) > 0 {
			c := g.chunks[0]
			g.chunks = g.chunks[1:]
			if g.admit(&c) {
				return c, nil
			}
			continue
		}
		if new, ok := g.compare.next(); ok {
			g.cut(&new)
			continue
		}
		if g.end != nil {
			return g.last()
		}
		if err := g.read(ctx); err != nil {
			return engine.Chunk{}, err
		}
	}
}

// admit reports whether a chunk may go out. The one with which there are as many tokens as were asked for waits: with it the text is
// complete, and where a server says nothing of tokens it may have more of them to come. If it has, that one counts for less.
func (g *generation) admit(c *engine.Chunk) bool {
	most := g.most()
	if most <= 0 || g.held == nil && g.count+c.Count() < most {
		g.count += c.Count()
		return true
	}
	if g.held == nil {
		held := *c
		g.held = &held
		return false
	}
	*c, *g.held = *g.held, *c
	g.limit(c, most-1)
	return true
}

// last returns the chunk that has waited for the end, and the end after that.
func (g *generation) last() (engine.Chunk, error) {
	if g.held == nil {
		return engine.Chunk{}, g.end
	}
	c := *g.held
	g.held = nil
	most := g.most()
	if _, complete := engine.Finished(g.end); !complete {
		most--
	}
	g.limit(&c, most)
	return c, nil
}

// limit has a chunk count for no more tokens than there may be.
func (g *generation) limit(c *engine.Chunk, most int) {
	n := min(c.Count(), max(0, most-g.count))
	if c.Tokens = n; n == 0 {
		c.Tokens = engine.NoTokens
	}
	g.count += n
}

// Close implements engine.Generation. The server is told at once.
func (g *generation) Close() error {
	g.abandon()
	return nil
}

// abandon ends the present attempt, if there is one.
func (g *generation) abandon() {
	if g.feed != nil {
		g.feed.close()
	}
	g.feed, g.end, g.held, g.chunks = nil, nil, nil, nil
}

// PromptTokens implements engine.Prompted.
func (g *generation) PromptTokens() int {
	if g.attempt.prompt > 0 || g.feed == nil {
		return g.attempt.prompt
	}
	return max(0, int(g.feed.prompt.Load())-g.attempt.within)
}

// Pledge implements engine.Pledging.
func (g *generation) Pledge() engine.Pledge {
	p := g.promise
	p.Resumed = g.resumed
	return p
}

// cut makes a piece chunks, which are bounded.
func (g *generation) cut(new *piece) {
	if new.channel == engine.Reasoning && !g.reasoned.Load() {
		g.reasoned.Store(true)
	}
	text, ids, tokens := new.Text, new.IDs, new.Tokens
	g.chunks = g.chunks[:0]
	for rest := splitLogprobs(new.Logprobs, engine.MaxData-callBytes); ; {
		c := engine.Chunk{Choice: new.Choice, Channel: new.channel}
		if c.Text, text = text, nil; len(c.Text) > engine.MaxText {
			n := engine.MaxText - beginning(c.Text[:engine.MaxText])
			c.Text, text = c.Text[:n], c.Text[n:]
		}
		if c.TokenIDs, ids = ids, nil; len(c.TokenIDs) > engine.MaxTokens {
			c.TokenIDs, ids = c.TokenIDs[:engine.MaxTokens], c.TokenIDs[engine.MaxTokens:]
		}
		c.Tokens = min(tokens, engine.MaxTokens)
		if tokens -= c.Tokens; c.Tokens == 0 {
			c.Tokens = engine.NoTokens
		}
		var logp json.RawMessage
		if len(rest) > 0 {
			logp, rest = rest[0], rest[1:]
		}
		c.Data = detail(new, logp)
		g.chunks = append(g.chunks, c)
		if len(text) == 0 && tokens == 0 && len(rest) == 0 {
			return
		}
	}
}

// callBytes is what a chunk's data has beside log probabilities, at most.
const callBytes = 128

// detail returns the data of a chunk, as a wire.Detail says it; nil for none.
func detail(new *piece, logp json.RawMessage) []byte {
	if new.channel != engine.ToolCall && len(logp) == 0 {
		return nil
	}
	data := make([]byte, 0, callBytes+len(logp))
	data = append(data, '{')
	if new.channel == engine.ToolCall {
		data = strconv.AppendInt(append(data, `"call":{"index":`...), int64(new.call), 10)
		if new.Call != nil && new.Call.Type == wire.CallCustom {
			data = append(data, `,"type":"custom"`...)
		}
		data = append(data, '}')
		if len(logp) > 0 {
			data = append(data, ',')
		}
	}
	if len(logp) > 0 {
		data = append(append(data, `"logprobs":`...), logp...)
	}
	return append(data, '}')
}
