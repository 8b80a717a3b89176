package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// job is one request, and what there was to serve it when it came.
type job struct {
	*Engine
	present
	features api.Features
	req      engine.Request
	shape    *shape
	call     api.Call // that makes the whole answer
	prompt   []uint32 // its ids, once the server has said them
}

func (e *Engine) newJob(req engine.Request) (*job, error) {
	now := e.now.Load()
	if now == nil {
		return nil, fmt.Errorf("%w: the server has not said which models it has", engine.ErrBusy)
	}
	j := &job{Engine: e, present: *now, features: e.server.Features(), req: req}
	if wire.IsAPI(req.API) {
		return j, nil
	}
	s, err := newShape(req)
	if err != nil {
		return nil, err
	}
	j.shape = s
	j.call = api.Call{
		Model: j.model.Name, API: s.api, Body: s.body, Prompt: req.Prompt, MaxTokens: req.MaxTokens, Seed: req.Seed,
		Choices: max(1, req.Choices), Stop: req.Stop, Trace: req.Trace,
	}
	if j.byIDs() == "" {
		// A server keeps back what may be the beginning of a stop string, and then the text is behind the ids. The director looks
		// for stop strings too.
		j.call.Stop, j.call.Body = nil, without(s.body, "stop")
	}
	return j, nil
}

// most is how many tokens all choices may have; 0 for any number.
func (j *job) most() int { return j.req.MaxTokens * max(1, j.req.Choices) }

// endless is how long a text may be where nobody says.
const endless = 1 << 16

// fit has the call ask for no more tokens than the model's context leaves, where the request itself does not say how many: then it is
// the director that does, and some servers refuse what goes beyond.
func (j *job) fit(ctx context.Context) {
	limit := j.call.MaxTokens
	if limit <= 0 {
		limit = endless
	}
	room := j.model.Context
	j.call.MaxTokens, j.call.Unlimited = limit, room <= 0 && !j.shape.limited && j.shape.body != nil
	if room <= 0 || j.shape.limited || len(j.call.Body)+len(j.call.Prompt)+templateTokens+limit <= room { // a token has a byte at least
		return
	}
	ids, err := j.tokenize(ctx)
	prompt := len(ids)
	if err != nil {
		prompt = (len(j.call.Body)+len(j.call.Prompt))/bytesPerToken + templateTokens
	}
	if room -= prompt; room > 0 {
		j.call.MaxTokens = min(limit, room)
	}
}

// tokenize returns the ids of the prompt.
func (j *job) tokenize(ctx context.Context) ([]uint32, error) {
	if j.prompt == nil {
		ids, err := j.server.Tokenize(ctx, j.call)
		if err != nil {
			return nil, err
		}
		j.prompt = slices.Clip(ids) // to append to it is to copy it
	}
	return j.prompt, nil
}

// reportFault reports an error of a server that was asked for something else than a text.
func (j *job) reportFault(err error) {
	var fault *api.Error
	if errors.As(err, &fault) && fault.Fault != api.Rejected {
		j.options.Report(err)
	}
}

// Guesses of how many tokens a prompt has, where the server does not say.
const (
	templateTokens = 64 // around a message
	bytesPerToken  = 2  // on the safe side
)

// byIDs says why an answer to this request cannot be gone on with by ids; empty if it can, as long as it is plain text.
func (j *job) byIDs() string {
	switch {
	case j.shape.notIDs != "":
		return j.shape.notIDs
	case !j.features.Prompt || !j.features.IDs[j.shape.api]:
		return "the server tells no ids, or takes none"
	case j.shape.api == wire.APIChat && j.reasoned.Load():
		return "the model reasons"
	}
	return ""
}

// continues reports whether the model, given ids, goes on with the text that it would have made.
func (j *job) continues() bool {
	return j.shape.greedy && j.abilities.Greedy || j.abilities.Continues
}

// pledge returns what can be promised for the stream, and why it is not more.
//
// A replay is promised where the same request had the same text again, or nothing is drawn. MaxReplayTokens counts where the request
// itself asks for more tokens: one that says nothing is promised a replay within this bound.
func (j *job) pledge() (p engine.Pledge, why string) {
	p.Resumed = engine.Exact
	if j.shape == nil { // one document, that is there at once
		p.Continuity = engine.Verified
		return p, ""
	}
	text := j.byText() == ""
	p.Portable = j.shape.greedy || text
	why = j.byIDs()
	long := j.options.MaxReplayTokens > 0 && j.shape.limited && j.most() > j.options.MaxReplayTokens
	switch {
	case why == "" && j.shape.least == 0 && j.continues() && j.abilities.Class == probe.Exact:
		p.Continuity = engine.Exact
	case why == "" && j.shape.least == 0 && (j.continues() || j.shape.greedy && j.features.Likely),
		!long && (j.abilities.Repeats || j.shape.greedy):
		p.Continuity = engine.Verified
	case text:
		p.Continuity = engine.Text
	}
	if why == "" {
		why = string("measured of the model: " + j.abilities.Class)
	}
	if long {
		why += fmt.Sprintf("; and it may have %d tokens, of which %d are made again", j.most(), j.options.MaxReplayTokens)
	}
	return p, why
}

// byText says why an answer to this request is not gone on with by its text; empty if it may be, as long as it is plain.
func (j *job) byText() string {
	switch {
	case j.req.Continuity != engine.Text:
		return "the caller does not allow it"
	case j.shape.notText != "":
		return j.shape.notText
	case !j.features.Text[j.shape.api]:
		return "the server does not do it"
	}
	return ""
}
