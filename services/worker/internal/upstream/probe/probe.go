// Package probe finds out what an inference server's model can be relied on for, when its text has to be made again, or gone on
// with: by trying it, whatever the server's flags say.
package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
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

// Server is what is asked.
type Server interface {
	Features() api.Features
	Generate(ctx context.Context, call api.Call) (*api.Stream, error)
	Tokenize(ctx context.Context, call api.Call) ([]uint32, error)
}

const (
	length = 32 // tokens of each text
	cut    = 16 // after which one is gone on with; half of a shorter text
	least  = 8  // tokens of a text that says something when it comes again
	others = 3  // requests beside which that is done again
	rounds = 2  // that each of these makes at most, one after the other
	seed   = 20_251_127
)

// prompts are tried one after the other until one has a text that is long enough to say something.
var prompts = []string{
	"The old lighthouse keeper opened the logbook, dipped his pen and wrote down everything that had happened since the storm:",
	"Here is a list of one hundred different animals, one after the other: ant, bear, cat, dog,",
}

// Measure tries a model of a server: a seeded text, the same again, a continuation by ids, both beside other requests, and a
// continuation without sampling. It takes some 350 tokens, and never more than about 500. The error is that of the server, or of ctx; what
// was seen before that is told all the same.
func Measure(ctx context.Context, s Server, model string) (a Abilities, err error) {
	tokens := 0
	for i, prompt := range prompts {
		p := &probe{server: s, model: model, prompt: prompt, api: wire.APICompletions, last: i == len(prompts)-1}
		a, err = p.measure(ctx)
		tokens += int(p.tokens.Load())
		if err != nil || !p.short {
			break
		}
	}
	a.Class = a.class()
	a.Tokens, a.Measured = tokens, time.Now()
	return a, err
}

// probe is one measurement.
type probe struct {
	server Server
	model  string
	prompt string
	api    string // that the server answers
	last   bool   // there is no other prompt
	short  bool   // the text ended before it could be cut, and compared
	tokens atomic.Int64
	seen   []string
}

// text is what came of a request.
type text struct {
	bytes  []byte
	ids    []uint32 // of all tokens; nil where the server does not tell them
	ends   []int    // of bytes, after each piece
	pieces []int    // ids, after each piece
	reason string
}

func (p *probe) measure(ctx context.Context) (a Abilities, err error) {
	defer func() { a.Seen = strings.Join(p.seen, "; ") }()
	first, err := p.run(ctx, p.call(p.prompt, seed, 1))
	if rejected(err) { // it may only chat
		p.api = wire.APIChat
		first, err = p.run(ctx, p.call(p.prompt, seed, 1))
	}
	if err != nil {
		return a, err
	}
	switch p.short = first.size() < cut+least; {
	case p.short && !p.last:
		return a, nil
	case first.size() < least:
		p.note("text", fmt.Sprintf("too short to say anything, %d tokens", first.size()))
		return a, nil
	}
	at := first.border()
	if a.Repeats, err = p.repeats(ctx, "again", first); err != nil {
		return a, err
	}
	switch byIDs := first.ids != nil && p.server.Features().Prompt; {
	case byIDs && at >= 0:
		if a.Continues, err = p.continues(ctx, "by ids", first, at, 1); err != nil {
			return a, err
		}
		fallthrough
	case byIDs:
		if a.Greedy, err = p.greedy(ctx); err != nil { // before others come, who may be there for a moment longer than they are waited for
			return a, err
		}
	default:
		p.note("by ids", "the server tells no ids, or takes none")
	}
	err = p.beside(ctx, func() error {
		if a.Repeats {
			a.RepeatsBusy, err = p.repeats(ctx, "again beside others", first)
		}
		if err == nil && a.Continues {
			a.ContinuesBusy, err = p.continues(ctx, "by ids beside others", first, at, 1)
		}
		return err
	})
	return a, err
}

func (a Abilities) class() Class {
	switch {
	case a.Repeats && a.RepeatsBusy && a.Continues && a.ContinuesBusy && a.Greedy:
		return Exact
	case a.Repeats && a.RepeatsBusy:
		return Replayable
	case a.Greedy || a.Continues:
		return IDs
	}
	return Text
}

func (p *probe) call(prompt string, seed uint64, temperature float64) api.Call {
	c := api.Call{Model: p.model, API: p.api, MaxTokens: length, Seed: seed, Choices: 1}
	if p.api == wire.APIChat {
		c.Body = fmt.Appendf(nil, `{"messages":[{"role":"user","content":%q}],"temperature":%v,"seed":%d,"max_tokens":%d}`, prompt, temperature, seed, length)
	} else {
		c.Body = fmt.Appendf(nil, `{"prompt":%q,"temperature":%v,"seed":%d,"max_tokens":%d}`, prompt, temperature, seed, length)
	}
	return c
}

// run reads a text to its end.
func (p *probe) run(ctx context.Context, call api.Call) (text, error) {
	return p.read(ctx, call, func() {})
}

// read is run, and calls begun with each piece.
func (p *probe) read(ctx context.Context, call api.Call, begun func()) (t text, err error) {
	stream, err := p.server.Generate(ctx, call)
	if err != nil {
		return t, err
	}
	defer stream.Close()
	told := true
	for {
		d, err := stream.Next()
		if f, complete := engine.Finished(err); complete {
			t.reason = f.Reason
			if !told {
				t.ids = nil
			}
			return t, nil
		}
		if err != nil {
			return t, err
		}
		begun()
		told = told && len(d.IDs) == d.Tokens
		p.tokens.Add(int64(d.Tokens))
		t.bytes, t.ids = append(t.bytes, d.Text...), append(t.ids, d.IDs...)
		t.ends, t.pieces = append(t.ends, len(t.bytes)), append(t.pieces, len(t.ids))
	}
}

// size is how many tokens a text has; pieces, where the server does not tell the tokens.
func (t text) size() int { return max(len(t.ids), len(t.ends)) }

// border returns the piece behind which a text can be gone on with by ids; negative if there is none.
func (t text) border() int {
	if t.ids == nil {
		return -1
	}
	for i, n := range t.pieces {
		// A piece without text may end within a character.
		if n >= min(cut, len(t.ids)/2) && n < len(t.ids) && (i == 0 || t.ends[i] > t.ends[i-1]) {
			return i
		}
	}
	return -1
}

// repeats has the same request made once more.
func (p *probe) repeats(ctx context.Context, what string, first text) (bool, error) {
	again, err := p.run(ctx, p.call(p.prompt, seed, 1))
	if err != nil {
		return false, err
	}
	return p.compare(what, first, again, text{}), nil
}

// continues has a text gone on with by ids behind a piece.
func (p *probe) continues(ctx context.Context, what string, first text, at int, temperature float64) (bool, error) {
	call := p.call(p.prompt, seed, temperature)
	ids, err := p.server.Tokenize(ctx, call)
	if err != nil {
		return p.impossible(what, err)
	}
	call.IDs, call.MaxTokens = append(ids, first.ids[:first.pieces[at]]...), length-first.pieces[at]
	rest, err := p.run(ctx, call)
	if err != nil {
		return p.impossible(what, err)
	}
	return p.compare(what, first, rest, text{bytes: first.bytes[:first.ends[at]], ids: first.ids[:first.pieces[at]]}), nil
}

// impossible takes a refusal for something that the server cannot do; any other error ends the measurement.
func (p *probe) impossible(what string, err error) (bool, error) {
	if !rejected(err) && !errors.Is(err, errors.ErrUnsupported) {
		return false, err
	}
	p.note(what, "refused: "+err.Error())
	return false, nil
}

// greedy is continues without sampling.
func (p *probe) greedy(ctx context.Context) (bool, error) {
	whole, err := p.run(ctx, p.call(p.prompt, seed, 0))
	if err != nil {
		return false, err
	}
	at := whole.border()
	if at < 0 {
		p.note("greedy by ids", fmt.Sprintf("the text cannot be cut, %d tokens in %d pieces", len(whole.ids), len(whole.pieces)))
		return false, nil
	}
	return p.continues(ctx, "greedy by ids", whole, at, 0)
}

// beside does something while other requests run: once each of them has a token, or none to expect.
func (p *probe) beside(ctx context.Context, f func() error) error {
	busy, cancel := context.WithCancel(ctx)
	var running, begun sync.WaitGroup
	defer running.Wait()
	defer cancel()
	begun.Add(others)
	var failed atomic.Int64
	for i := range others {
		running.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			for round := range rounds {
				call := p.call(fmt.Sprintf("%d. %s", round*others+i+2, p.prompt), seed+uint64(round*others+i)+1, 1)
				if _, err := p.read(busy, call, begin); err != nil {
					if busy.Err() == nil {
						failed.Add(1)
					}
					return
				}
			}
		})
	}
	begun.Wait()
	err := f()
	if n := failed.Load(); n > 0 {
		p.note("beside others", fmt.Sprintf("%d of %d failed", n, others))
	}
	return err
}

// compare compares the rest of a text, behind what it begins with, with another one, and notes what it finds. Ids count where both have
// them.
func (p *probe) compare(what string, first, other, begins text) bool {
	want, from := first.bytes[len(begins.bytes):], len(begins.bytes)
	n := 0
	for n < len(want) && n < len(other.bytes) && want[n] == other.bytes[n] {
		n++
	}
	switch {
	case n < len(want) || n < len(other.bytes):
		p.note(what, fmt.Sprintf("differs after %d of %d bytes", from+n, len(first.bytes)))
	case first.ids != nil && other.ids != nil && !slices.Equal(first.ids[len(begins.ids):], other.ids):
		p.note(what, "the same text of other tokens")
	case first.reason != other.reason:
		p.note(what, fmt.Sprintf("the same text, but it ends with %q and not with %q", other.reason, first.reason))
	default:
		p.note(what, "the same")
		return true
	}
	return false
}

func (p *probe) note(what, found string) { p.seen = append(p.seen, what+": "+found) }

// rejected reports whether a server does not take such a request.
func rejected(err error) bool {
	var fault *api.Error
	return errors.As(err, &fault) && (fault.Fault == api.Rejected || fault.Fault == api.Denied)
}
