package engines

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// model knows which words followed which in a text. It never changes once it is built.
//
// The text is seen as a ring of words, so that every word has one before and one after it. A place in the text
// stands for the two words that end there: whatever is asked about it, two places with the same two words get
// the same answer.
type model struct {
	text []wordID // the ring; punctuation counts as words
	form []forms  // of each wordID
	id   map[string]wordID

	byPair []place // all places, those with the same two words together
	pairAt []span  // for each place its own group within byPair
	byWord []place // all places, those with the same word together
	wordAt []span  // for each wordID its group within byWord

	starts []place // where a sentence begins
}

type (
	wordID int32
	place  int32 // index into text
	span   struct{ from, to int32 }
)

// forms are a word's bytes as a token, in each setting that it can have.
type forms [4][]byte

// Settings of a token: what stands before it, and whether it begins with a capital.
const (
	within    = iota // within a sentence, after a space
	sentence         // first in a sentence, after a space
	paragraph        // first in a paragraph, after an empty line
	opening          // first of all
)

func newModel(text string) *model {
	m := &model{id: make(map[string]wordID)}
	words := split(text)
	m.number(words)
	m.index()
	return m
}

// split cuts text into words and punctuation marks.
func split(text string) []string {
	var words []string
	for _, field := range strings.Fields(text) {
		word := strings.TrimRightFunc(field, isMark)
		if word != "" {
			words = append(words, word)
		}
		for _, mark := range field[len(word):] {
			words = append(words, string(mark))
		}
	}
	return words
}

func isMark(r rune) bool { return strings.ContainsRune(".,?!;:", r) }

func endsSentence(word string) bool { return word == "." || word == "?" || word == "!" }

// number gives each word an id and its forms. Words that differ only in the case of their first letter are one.
func (m *model) number(words []string) {
	proper := make(map[string]bool) // words with a capital within a sentence
	for i, word := range words {
		first := endsSentence(words[(i+len(words)-1)%len(words)])
		if !first && lowered(word) != word {
			proper[lowered(word)] = true
		}
		if first {
			m.starts = append(m.starts, place(i))
		}
	}
	for _, word := range words {
		key := lowered(word)
		id, known := m.id[key]
		if !known {
			id = wordID(len(m.form))
			m.id[key] = id
			m.form = append(m.form, formsOf(key, proper[key]))
		}
		m.text = append(m.text, id)
	}
}

func formsOf(key string, proper bool) forms {
	capital := raised(key)
	plain := key
	if proper {
		plain = capital
	}
	if first, _ := utf8.DecodeRuneInString(key); isMark(first) {
		mark := []byte(key)
		return forms{mark, mark, mark, mark}
	}
	return forms{[]byte(" " + plain), []byte(" " + capital), []byte("\n\n" + capital), []byte(capital)}
}

func lowered(word string) string { return mapFirst(word, unicode.ToLower) }
func raised(word string) string  { return mapFirst(word, unicode.ToUpper) }

func mapFirst(word string, f func(rune) rune) string {
	first, size := utf8.DecodeRuneInString(word)
	return string(f(first)) + word[size:]
}

// index sorts the places by what ends there.
func (m *model) index() {
	all := make([]place, len(m.text))
	for i := range all {
		all[i] = place(i)
	}
	m.byWord, m.byPair = slices.Clone(all), all
	slices.SortStableFunc(m.byWord, func(a, b place) int { return cmp.Compare(m.text[a], m.text[b]) })
	slices.SortStableFunc(m.byPair, m.comparePairs)

	m.wordAt = make([]span, len(m.form))
	groups(m.byWord, func(a, b place) bool { return m.text[a] == m.text[b] }, func(group span) {
		m.wordAt[m.text[m.byWord[group.from]]] = group
	})
	m.pairAt = make([]span, len(m.text))
	groups(m.byPair, func(a, b place) bool { return m.comparePairs(a, b) == 0 }, func(group span) {
		for _, p := range m.byPair[group.from:group.to] {
			m.pairAt[p] = group
		}
	})
}

// groups calls found for each run of places that are the same.
func groups(places []place, same func(a, b place) bool, found func(span)) {
	from := 0
	for i := range places {
		if i+1 == len(places) || !same(places[i], places[i+1]) {
			found(span{int32(from), int32(i + 1)})
			from = i + 1
		}
	}
}

func (m *model) comparePairs(a, b place) int {
	return cmp.Or(
		cmp.Compare(m.text[m.before(a)], m.text[m.before(b)]),
		cmp.Compare(m.text[a], m.text[b]),
	)
}

func (m *model) before(p place) place {
	if p == 0 {
		return place(len(m.text) - 1)
	}
	return p - 1
}

func (m *model) after(p place) place {
	if int(p) == len(m.text)-1 {
		return 0
	}
	return p + 1
}

// parse returns the word that a token is a form of.
func (m *model) parse(token []byte) (wordID, bool) {
	id, ok := m.id[lowered(string(bytes.TrimLeft(token, " \n")))]
	return id, ok
}

// find returns a place where first and second stand one after the other.
func (m *model) find(first, second wordID) (place, bool) {
	i, ok := slices.BinarySearchFunc(m.byPair, [2]wordID{first, second}, func(p place, pair [2]wordID) int {
		return cmp.Or(cmp.Compare(m.text[m.before(p)], pair[0]), cmp.Compare(m.text[p], pair[1]))
	})
	if !ok {
		return 0, false
	}
	return m.byPair[i], true
}

func (m *model) ends(p place) bool { return endsSentence(string(m.form[m.text[p]][within])) }

// walk returns the place n words after p.
func (m *model) walk(p place, n int) place { return place((int(p) + n) % len(m.text)) }
