// Package probe finds out what an inference server's model can be relied on for, when its text has to be made again, or gone on
// with: by trying it, whatever the server's flags say.
package probe

import (
	"context"
	"errors"
	"time"

	"github.com/connswap/connswap/services/worker/internal/upstream/api"
)

// Class sums up what was seen of a model.
type Class string

// Classes, from the best.
const (
	Exact      Class = "exact"      // a sampled text that goes on by ids is the one that would have been, also beside other requests
	Replayable Class = "replayable" // the same request has the same text again, also beside other requests
	IDs        Class = "ids"        // a text goes on by ids, as the likeliest one, at least
	Text       Class = "text"       // nothing of this was seen
)

// Abilities are what was seen of a model.
type Abilities struct {
	Class         Class     `json:"class"`
	Repeats       bool      `json:"repeats"`        // the same seeded request had the same text again
	RepeatsBusy   bool      `json:"repeats_busy"`   // also beside other requests
	Continues     bool      `json:"continues"`      // by ids, with the seed, the text that it had without a cut
	ContinuesBusy bool      `json:"continues_busy"` // also beside other requests
	Greedy        bool      `json:"greedy"`         // by ids, without sampling, the text that it had without a cut
	Seen          string    `json:"seen"`           // for people: what was compared, and where it first differed
	Measured      time.Time `json:"measured"`
	Tokens        int       `json:"tokens"` // that it took
}

// Measure tries a model of a server.
func Measure(ctx context.Context, s *api.Server, m api.Model) (Abilities, error) {
	return Abilities{}, errors.ErrUnsupported
}
