package engines

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
)

//go:embed corpus.txt
var corpus string

const markovVersion = 1

// Chances out of 256.
const (
	chanceLeap      = 28  // to leave the beaten track within a sentence, where the text knows only one way on
	chanceTurn      = 160 // the same at the end of a sentence
	chanceParagraph = 36  // to begin a paragraph there
)

// Markov is a small language model: the next word is one that followed the last two words in its text, or now
// and then the last word alone. Its text was written for this project and is part of the program. It never
// ends by itself.
//
// The choice of token n depends on the request, on n and on the two tokens before it, and on nothing else; so
// a generation is opened at any prefix in the same short time.
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
func (m *Markov) Open(_ context.Context, req engine.Request, prefix [][]byte) (engine.Generation, error) {
	g := &walk{markov: m, model: m.model, n: uint64(len(prefix))}
	lead := m.lead(req.Prompt)
	g.key = mix(req.Seed ^ mix(lead.hash))
	g.at, g.lead = lead.from, lead.length
	if len(prefix) == 0 {
		return g, nil
	}
	at, err := m.resume(prefix, lead)
	if err != nil {
		return nil, err
	}
	g.at = at
	return g, nil
}

// resume finds the place that stands for the last two tokens of prefix.
func (m *Markov) resume(prefix [][]byte, lead lead) (place, error) {
	last := len(prefix) - 1
	if uint64(last) < lead.length {
		// Still on the lead. The last token has to be the lead's, or else the prefix is of another request.
		at := m.model.walk(lead.from, last+1)
		if id, ok := m.model.parse(prefix[last]); !ok || id != m.model.text[at] {
			return 0, fmt.Errorf("markov: token %d of the prefix is %.40q, not one of this request", last+1, prefix[last])
		}
		return at, nil
	}
	first, ok1 := m.model.parse(prefix[last-1])
	second, ok2 := m.model.parse(prefix[last])
	at, ok := m.model.find(first, second)
	if !ok1 || !ok2 || !ok {
		return 0, fmt.Errorf("markov: the prefix ends in %.40q, %.40q, which is not of this engine", prefix[last-1], prefix[last])
	}
	return at, nil
}

// walk is a generation: a walk through the model's text.
type walk struct {
	markov *Markov
	model  *model
	key    uint64 // of the random choices
	lead   uint64 // the first tokens follow the text without a choice
	n      uint64 // tokens made
	at     place  // of the last token
}

func (g *walk) Next(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.n++
	chance := mix(g.key + g.n*0x9e3779b97f4a7c15) // splitmix64: the n-th number without the ones before
	setting := g.setting(chance)
	g.at = g.step(chance)
	return g.model.form[g.model.text[g.at]][setting], nil
}

func (g *walk) step(chance uint64) place {
	if g.n <= g.lead {
		return g.model.after(g.at)
	}
	places := g.model.byPair
	group := g.model.pairAt[g.at]
	if group.to-group.from == 1 && g.leaps(chance) {
		places, group = g.model.byWord, g.model.wordAt[g.model.text[g.at]]
	}
	choice := uint64(group.to-group.from) * (chance >> 32) >> 32
	return g.model.after(places[group.from+int32(choice)])
}

func (g *walk) leaps(chance uint64) bool {
	if g.markov.endings[g.model.text[g.at]] {
		return chance&0xff < chanceTurn
	}
	return chance&0xff < chanceLeap
}

func (g *walk) setting(chance uint64) int {
	switch {
	case g.n == 1:
		return opening
	case !g.markov.endings[g.model.text[g.at]]:
		return within
	case chance>>8&0xff < chanceParagraph:
		return paragraph
	default:
		return sentence
	}
}

func (g *walk) Close() error { return nil }

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
