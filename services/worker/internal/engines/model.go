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
// stands for the words that end there: whatever is asked about it, places with the same words get the same
// answer.
type model struct {
	text     []wordID // the ring; punctuation counts as words
	form     []forms  // of each wordID
	id       map[string]wordID
	starts   []place           // where a sentence begins
	contexts [order + 1]groups // by the number of words that count
}

// order is how many words the choice of the next one looks back at, at most.
const order = 3

type (
	wordID int32
	place  int32 // index into text
)

// groups are the places, those together that have the same words.
type groups struct {
	places []place
	spans  []span // for each place its own group within places
}

type span struct{ from, to int32 }

func (s span) size() int { return int(s.to - s.from) }

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

// index groups the places by what ends there.
func (m *model) index() {
	for n := 1; n <= order; n++ {
		places := make([]place, len(m.text))
		for i := range places {
			places[i] = place(i)
		}
		slices.SortStableFunc(places, func(a, b place) int { return m.compare(n, a, b) })
		m.contexts[n] = groups{places: places, spans: make([]span, len(places))}
		from := 0
		for i := range places {
			if i+1 < len(places) && m.compare(n, places[i], places[i+1]) == 0 {
				continue
			}
			for _, p := range places[from : i+1] {
				m.contexts[n].spans[p] = span{int32(from), int32(i + 1)}
			}
			from = i + 1
		}
	}
}

// compare compares the last n words of two places, the last word first.
func (m *model) compare(n int, a, b place) int {
	for range n {
		if c := cmp.Compare(m.text[a], m.text[b]); c != 0 {
			return c
		}
		a, b = m.before(a), m.before(b)
	}
	return 0
}

// find returns a place where words stand one after the other; there are up to order of them.
func (m *model) find(words ...wordID) (place, bool) {
	places := m.contexts[len(words)].places
	i, ok := slices.BinarySearchFunc(places, words, func(p place, words []wordID) int {
		for i := len(words) - 1; i >= 0; i-- {
			if c := cmp.Compare(m.text[p], words[i]); c != 0 {
				return c
			}
			p = m.before(p)
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return places[i], true
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

func (m *model) ends(p place) bool { return endsSentence(string(m.form[m.text[p]][within])) }

// walk returns the place n words after p.
func (m *model) walk(p place, n int) place { return place((int(p) + n) % len(m.text)) }
