package engines

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
)

//go:embed corpus.txt
var corpus string

const markovVersion = 2

// Chances out of 256.
const (
	chanceLeap      = 200 // to look back at two words only, where the text knows but one way on from three
	chanceTurn      = 120 // to look back at nothing but the full stop
	chanceParagraph = 36  // to begin a paragraph after it
)

// How many tokens an answer has, with the rest of its last sentence.
const (
	leastAnswer = 60
	moreAnswer  = 120
)

// Markov is a small language model: the next word is one that followed the last three words in its text, or
// the last two. Its text was written for this project and is part of the program. What was asked for in OpenAI's form ends after
// some sentences, anything else never ends by itself.
//
// The choice of token n depends on the request, on n and on the three tokens before it, and on nothing else;
// so a generation is opened at any prefix in the same short time.
type Markov struct {
	model       *model
	fingerprint string
	endings     []bool      // for each wordID: it ends a sentence
	meetings    [][]meeting // for each wordID: where it stands early in a sentence
}

// NewMarkov builds the model.
func NewMarkov() *Markov {
	m := &Markov{model: newModel(corpus), fingerprint: fingerprint("markov", markovVersion, corpus)}
	m.endings = make([]bool, len(m.model.form))
	for p := range m.model.text {
		m.endings[m.model.text[p]] = m.model.ends(place(p))
	}
	m.meetings = m.model.meetings()
	return m
}

// Name returns markov.
func (m *Markov) Name() string { return "markov" }

// Fingerprint depends on the text.
func (m *Markov) Fingerprint() string { return m.fingerprint }

// Open continues prefix. It fails for a prefix that this engine has not made.
func (m *Markov) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	limit, err := begin("markov", req, engine.Count(prefix))
	if err != nil {
		return nil, err
	}
	lead := m.lead(req.Prompt)
	wish, err := wishOf(req)
	if err != nil {
		return nil, err
	}
	g := &walk{
		limit: limit, markov: m, model: m.model, key: mix(req.Seed ^ mix(lead.hash)),
		lead: lead.length, n: uint64(len(prefix)), at: lead.from, known: order,
	}
	if !wish.IgnoreEOS {
		g.enough = leastAnswer + mix(g.key)%moreAnswer
	}
	if err := g.resume(lead, prefix); err != nil {
		return nil, err
	}
	return g, nil
}

// walk is a generation: a walk through the model's text.
type walk struct {
	limit  engine.Limit
	markov *Markov
	model  *model
	key    uint64 // of the random choices
	lead   uint64 // the first tokens follow the text without a choice
	n      uint64 // tokens made
	at     place  // where the last tokens stand in the text
	known  int    // how many of them do; what they are decides at and known
	enough uint64 // tokens after which the text ends with its sentence; 0 for never
}

// resume goes to the place that stands for the last tokens of prefix.
func (g *walk) resume(lead lead, prefix []engine.Chunk) error {
	if g.n <= g.lead {
		g.at = g.model.walk(lead.from, len(prefix))
		if len(prefix) == 0 {
			return nil
		}
		last := prefix[len(prefix)-1].Text
		if id, ok := g.model.parse(last); !ok || id != g.model.text[g.at] {
			return fmt.Errorf("markov: token %d of the prefix is %.40q, not one of this request", g.n, last)
		}
		return nil
	}
	words := []wordID{g.model.text[lead.from]} // what stood before the first token
	for _, token := range prefix[max(0, len(prefix)-order):] {
		id, ok := g.model.parse(token.Text)
		if !ok {
			return fmt.Errorf("markov: the prefix has %.40q among its last tokens, a word that this engine does not know", token.Text)
		}
		words = append(words, id)
	}
	if !g.locate([order]wordID(words[len(words)-order:])) {
		return fmt.Errorf("markov: the prefix ends in %q%q, which this engine cannot have made", prefix[len(prefix)-2].Text, prefix[len(prefix)-1].Text)
	}
	return nil
}

// locate sets at and known from the last words. It is false for words that no walk ends in.
func (g *walk) locate(words [order]wordID) (ok bool) {
	for g.known = order; g.known >= 2; g.known-- {
		if g.at, ok = g.model.find(words[order-g.known:]...); ok {
			return true
		}
	}
	return false
}

func (g *walk) Next(ctx context.Context) (engine.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return engine.Chunk{}, err
	}
	if g.enough > 0 && g.n >= g.enough && g.ended() {
		return engine.Chunk{}, g.limit.Finish(engine.Stop)
	}
	if err := g.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	g.n++
	chance := mix(g.key + g.n*0x9e3779b97f4a7c15) // splitmix64: the n-th number without the ones before
	setting := g.setting(chance)
	g.step(chance)
	return engine.Chunk{Text: g.model.form[g.model.text[g.at]][setting]}, nil
}

func (g *walk) step(chance uint64) {
	if g.n <= g.lead {
		g.at = g.model.after(g.at)
		return
	}
	back := g.lookBack(chance)
	group := g.model.contexts[back].spans[g.at]
	choice := uint64(group.size()) * (chance >> 32) >> 32
	next := g.model.after(g.model.contexts[back].places[group.from+int32(choice)])
	if back > 1 {
		g.at, g.known = next, order
		return
	}
	g.locate([order]wordID{g.model.text[g.model.before(g.at)], g.model.text[g.at], g.model.text[next]})
}

// lookBack is how many words count for the next choice.
func (g *walk) lookBack(chance uint64) int {
	switch {
	case g.ended() && chance&0xff < chanceTurn:
		return 1
	case g.known == order && g.model.contexts[order].spans[g.at].size() == 1 && chance&0xff < chanceLeap:
		return order - 1
	default:
		return g.known
	}
}

// ended reports whether the last token ended a sentence.
func (g *walk) ended() bool { return g.markov.endings[g.model.text[g.at]] }

func (g *walk) setting(chance uint64) int {
	switch {
	case g.n == 1:
		return opening
	case !g.ended():
		return within
	case chance>>8&0xff < chanceParagraph:
		return paragraph
	default:
		return sentence
	}
}

// PromptTokens implements engine.Prompted.
func (g *walk) PromptTokens() int { return g.limit.PromptTokens() }

func (g *walk) Close() error { return nil }

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
