package engines

import (
	"hash/fnv"
	"slices"
	"strings"
)

// lead is how a generation begins: with a sentence that has to do with the prompt, up to the word in which they
// meet. It depends on the prompt alone.
type lead struct {
	hash   uint64 // of the whole prompt
	from   place  // the place before the first word
	length uint64 // how many words to follow before the first choice
}

const (
	leadLimit   = 12  // words
	promptWords = 512 // of the prompt that are looked at, from its end
	commonWord  = 40  // occurrences in the text from which on a word says nothing
)

// meeting is a place where a word stands early in a sentence.
type meeting struct {
	sentence int    // index into starts
	length   uint64 // words up to and with this one
	rarity   uint64 // of the word
}

// meetings lists for each word the sentences that begin with it, or have it soon after.
func (m *model) meetings() [][]meeting {
	all := make([][]meeting, len(m.form))
	for i, at := range m.starts {
		for n := uint64(1); n <= leadLimit && !m.ends(at); n++ {
			if m.count(at) < commonWord {
				all[m.text[at]] = append(all[m.text[at]], meeting{i, n, uint64(commonWord*commonWord) / uint64(m.count(at))})
			}
			at = m.after(at)
		}
	}
	return all
}

// count is how often the word at p stands in the text.
func (m *model) count(p place) int { return m.contexts[1].spans[p].size() }

func (m *Markov) lead(prompt string) lead {
	sum := fnv.New64a()
	sum.Write([]byte(prompt)) // never fails
	hash := sum.Sum64()
	sentence, length := m.closest(prompt, int(mix(hash)%uint64(len(m.model.starts))))
	return lead{hash: hash, from: m.model.before(m.model.starts[sentence]), length: length}
}

// closest returns the sentence that shares the rarest words with the prompt, and the length of the way to the
// rarest of them. Of equals it takes the first one from the sentence first on, and that one where there is none.
func (m *Markov) closest(prompt string, first int) (sentence int, length uint64) {
	type score struct{ total, rarest, length uint64 }
	scores := make(map[int]score)
	for _, word := range m.asked(prompt) {
		for _, meet := range m.meetings[word] {
			s := scores[meet.sentence]
			s.total += meet.rarity
			if meet.rarity > s.rarest {
				s.rarest, s.length = meet.rarity, meet.length
			}
			scores[meet.sentence] = s
		}
	}
	n := len(m.model.starts)
	distance := func(s int) int { return (s - first + n) % n }
	sentence, best := first, score{length: 1}
	for i, s := range scores {
		if s.total > best.total || s.total == best.total && distance(i) < distance(sentence) {
			sentence, best = i, s
		}
	}
	return sentence, best.length
}

// asked returns the words of the prompt that the text knows, each once, in a fixed order.
func (m *Markov) asked(prompt string) []wordID {
	const longest = 32 // bytes of a word, about
	words := split(prompt[max(0, len(prompt)-promptWords*longest):])
	var asked []wordID
	for _, word := range words[max(0, len(words)-promptWords):] {
		if id, ok := m.model.id[strings.ToLower(word)]; ok {
			asked = append(asked, id)
		}
	}
	slices.Sort(asked)
	return slices.Compact(asked)
}
