package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// rung is one way to go on with a stream.
type rung struct {
	name   string
	class  engine.Continuity
	replay bool // it makes the whole answer again
	plan   func(ctx context.Context, prefix []engine.Chunk) (attempt, error)
}

// attempt is what a server is asked for, to go on with a stream.
type attempt struct {
	call   api.Call
	expect []engine.Chunk // of the stream, that the answer begins with
	behind int            // tokens of the stream before these
	prompt int            // tokens of the prompt; 0 where the server's number is right
	within int            // tokens of the stream that the server counts with the prompt, where that is not known
	strict bool           // the tokens have to be the same, not only the text
}

// triesPerRung is at how many workers each rung is tried.
const triesPerRung = 2

// rungs returns the ways to go on behind a prefix, from the best.
func (j *job) rungs(prefix []engine.Chunk) []rung {
	var all []rung
	equal := j.req.Fingerprint == "" || j.req.Fingerprint == j.model.Fingerprint
	if equal && j.byIDs() == "" && told(prefix) && j.speaks(prefix) && engine.Count(prefix) >= j.shape.least {
		class := engine.Verified
		if j.abilities.Class == probe.Exact {
			class = engine.Exact
		}
		if j.continues() {
			all = append(all, rung{name: "ids", class: class, plan: j.overlapping})
		}
		if j.shape.greedy && j.features.Likely {
			all = append(all, rung{name: "greedy check", class: engine.Verified, plan: j.likely})
		}
	}
	most := j.options.MaxReplayTokens
	if (equal || j.shape.greedy) && (most <= 0 || engine.Count(prefix) <= most || j.req.Role == engine.RunningAlong) {
		all = append(all, rung{name: "replay", class: engine.Verified, replay: true, plan: j.replay})
	}
	if j.byText() == "" && plainly(prefix) {
		all = append(all, rung{name: "text", class: engine.Text, plan: j.text})
	}
	return all
}

// resume goes on behind a prefix: on the rung whose turn it is, or the next one that the server does not refuse.
func (g *generation) resume(ctx context.Context, prefix []engine.Chunk, waiting *ticks) error {
	if now := g.Fingerprint(); now != g.model.Fingerprint {
		return fmt.Errorf("%w: the model was %q, and is %q now", engine.ErrBusy, g.model.Fingerprint, now)
	}
	all := g.rungs(prefix)
	if len(all) == 0 && g.req.Fingerprint != "" && g.req.Fingerprint != g.model.Fingerprint {
		return fmt.Errorf("%w: the stream is of %q, and here is %q", engine.ErrBusy, g.req.Fingerprint, g.model.Fingerprint)
	}
	var reasons []error
	for _, r := range all[min(g.req.Tries/triesPerRung, len(all)):] {
		err := g.try(ctx, r, prefix, waiting)
		if !refused(err) {
			return err
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", r.name, err))
	}
	return notContinued(all, reasons)
}

// try goes on as one rung does.
func (g *generation) try(ctx context.Context, r rung, prefix []engine.Chunk, waiting *ticks) error {
	waiting.start()
	a, err := r.plan(ctx, prefix)
	if err != nil {
		g.reportFault(err)
		return failure(err, true, false)
	}
	g.resumed = r.class
	if err := g.start(ctx, a, prefix, readAhead, waiting); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// notContinued says that there is no other way, and which there were.
func notContinued(all []rung, reasons []error) error {
	if len(all) == 0 {
		return fmt.Errorf("%w: there is no way for such a request, or behind so much of an answer", engine.ErrNotContinued)
	}
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.name
	}
	err := fmt.Errorf("%w: tried were %s", engine.ErrNotContinued, strings.Join(names, ", "))
	for _, reason := range reasons {
		err = fmt.Errorf("%w; %w", err, reason)
	}
	return err
}

// whole is the attempt to make the answer from its beginning.
func (j *job) whole(ctx context.Context, prefix []engine.Chunk) attempt {
	j.fit(ctx)
	return attempt{call: j.call, expect: prefix}
}

func (j *job) replay(ctx context.Context, prefix []engine.Chunk) (attempt, error) {
	return j.whole(ctx, prefix), nil
}

// overlapping goes on by ids, with the overlap that the options say.
func (j *job) overlapping(ctx context.Context, prefix []engine.Chunk) (attempt, error) {
	prompt, err := j.tokenize(ctx)
	if err != nil {
		return attempt{}, err
	}
	return j.ids(prompt, prefix, j.options.Overlap)
}

// likely goes on by ids once the server has said that each token is the likeliest.
func (j *job) likely(ctx context.Context, prefix []engine.Chunk) (attempt, error) {
	prompt, err := j.tokenize(ctx)
	if err != nil {
		return attempt{}, err
	}
	ids := idsOf(prompt, prefix)
	ok, err := j.server.Likely(ctx, j.model.Name, ids, len(prompt))
	if err != nil {
		return attempt{}, err
	}
	if !ok {
		return attempt{}, fmt.Errorf("greedy check: %w: a token of the stream is not the likeliest", engine.ErrDiverged)
	}
	return j.ids(prompt, prefix, 1)
}

// ids goes on by ids, at a border that has so many tokens behind it, at least: these are made again.
func (j *job) ids(prompt []uint32, prefix []engine.Chunk, overlap int) (attempt, error) {
	at := border(prefix, overlap)
	behind := engine.Count(prefix[:at])
	if behind < j.shape.least {
		return attempt{}, fmt.Errorf("%w: the answer has at least %d tokens, and so far %d", errors.ErrUnsupported, j.shape.least, behind)
	}
	call := j.call
	call.IDs = idsOf(prompt, prefix[:at])
	call.Done = behind
	if call.MaxTokens <= 0 {
		call.MaxTokens = endless
	}
	if room := j.model.Context; room > 0 && !j.shape.limited {
		call.MaxTokens = min(call.MaxTokens, room-len(prompt)) // as fit does
	}
	if call.MaxTokens -= behind; call.MaxTokens < 1 {
		return attempt{}, fmt.Errorf("%w: the answer has %d tokens of %d", errors.ErrUnsupported, behind, j.call.MaxTokens)
	}
	return attempt{call: call, expect: prefix[at:], behind: behind, prompt: len(prompt), strict: true}, nil
}

// text goes on behind the text so far.
func (j *job) text(ctx context.Context, prefix []engine.Chunk) (attempt, error) {
	j.fit(ctx)
	text, whole := textOf(prefix)
	made := engine.Count(prefix)
	call := j.call
	call.Text = text[:whole]
	call.Done = made
	if call.MaxTokens -= made; call.MaxTokens < 1 {
		return attempt{}, fmt.Errorf("%w: the answer has %d tokens of %d", errors.ErrUnsupported, made, j.call.MaxTokens)
	}
	a := attempt{call: call, behind: made, within: made}
	if rest := text[whole:]; len(rest) > 0 { // the beginning of a character, which the server makes anew
		a.expect = []engine.Chunk{{Text: rest, Tokens: engine.NoTokens}}
	}
	return a, nil
}

// plainly reports whether chunks are nothing but one text.
func plainly(chunks []engine.Chunk) bool {
	return !slices.ContainsFunc(chunks, func(c engine.Chunk) bool { return c.Channel != engine.Content || c.Choice != 0 })
}

// speaks reports whether the answer has begun to be content. Before a chat has, the next tokens may be those of something else, which
// the server would not take for that behind ids.
func (j *job) speaks(chunks []engine.Chunk) bool {
	return j.shape.api != wire.APIChat || len(chunks) == 0 ||
		slices.ContainsFunc(chunks, func(c engine.Chunk) bool { return len(bytes.TrimSpace(c.Text)) > 0 })
}

// told reports whether chunks are one text, of which the id of each token is known.
func told(chunks []engine.Chunk) bool {
	return plainly(chunks) && !slices.ContainsFunc(chunks, func(c engine.Chunk) bool { return len(c.TokenIDs) != c.Count() })
}

// idsOf appends the ids of chunks.
func idsOf(ids []uint32, chunks []engine.Chunk) []uint32 {
	for i := range chunks {
		ids = append(ids, chunks[i].TokenIDs...)
	}
	return ids
}

// textOf returns the text of chunks, and how many bytes of it are whole characters.
func textOf(chunks []engine.Chunk) (text []byte, whole int) {
	for i := range chunks {
		text = append(text, chunks[i].Text...)
	}
	return text, len(text) - beginning(text)
}

// border returns after how many chunks an answer can be gone on with by ids, so that there are some tokens behind it, at least: where
// the text is that of the ids. It is not where a server may have kept something back: in a character, or behind a chunk without text.
func border(chunks []engine.Chunk, overlap int) int {
	at := len(chunks)
	for n := 0; at > 0; at-- {
		if n >= overlap && len(chunks[at-1].Text) > 0 && ends(chunks[:at]) {
			break
		}
		n += chunks[at-1].Count()
	}
	return at
}

// ends reports whether the text of chunks ends in a whole character.
func ends(chunks []engine.Chunk) bool {
	var tail []byte
	for i := len(chunks) - 1; i >= 0 && len(tail) < utf8.UTFMax; i-- {
		tail = append(slices.Clone(chunks[i].Text), tail...)
	}
	return beginning(tail) == 0
}

// beginning returns how many bytes at the end of a text are the beginning of a character.
func beginning(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if utf8.FullRune(text[len(text)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}
