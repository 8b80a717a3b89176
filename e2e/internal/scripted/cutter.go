package scripted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/connswap/connswap/services/worker/engine"
)

// Cutter is an engine whose first attempt at a stream ends at a chunk. The request says at which one, in its field user: see User.
// Others, and all further attempts, are the engine's own.
type Cutter struct {
	engine.Engine

	mu    sync.Mutex
	opens map[string][]int // by user: after how many chunks each attempt began
}

// Ways of a first attempt to end.
const (
	Fail = "fail" // the engine returns an error
	Park = "park" // it makes nothing more, until it is stopped
)

// User is the user of a request whose first attempt is to end in a way, after so many chunks. name tells it from others.
func User(name, way string, after int) string { return fmt.Sprintf("%s %d %s", way, after, name) }

// Attempts returns after how many chunks each attempt at the stream of a user began.
func (c *Cutter) Attempts(user string) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.opens[user]...)
}

// Open opens the engine's.
func (c *Cutter) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := c.Engine.Open(ctx, req, prefix, progress)
	if err != nil {
		return nil, err
	}
	var asked struct {
		User string `json:"user"`
	}
	_ = json.Unmarshal(req.Body, &asked) // one without a body has no user
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opens == nil {
		c.opens = map[string][]int{}
	}
	first := len(c.opens[asked.User]) == 0
	c.opens[asked.User] = append(c.opens[asked.User], len(prefix))
	cut := &cutting{Generation: g}
	if n, err := fmt.Sscanf(asked.User, "%s %d", &cut.way, &cut.left); !first || n != 2 || err != nil {
		return g, nil
	}
	return cut, nil
}

// cutting is a first attempt.
type cutting struct {
	engine.Generation
	way  string
	left int // chunks
}

// PromptTokens implements engine.Prompted; 0 where the engine does not say.
func (g *cutting) PromptTokens() int {
	if p, ok := g.Generation.(engine.Prompted); ok {
		return p.PromptTokens()
	}
	return 0
}

func (g *cutting) Next(ctx context.Context) (engine.Chunk, error) {
	if g.left == 0 {
		if g.way == Fail {
			return engine.Chunk{}, errors.New("the engine fails, as it was asked to")
		}
		<-ctx.Done()
		return engine.Chunk{}, context.Cause(ctx)
	}
	g.left--
	return g.Generation.Next(ctx)
}
