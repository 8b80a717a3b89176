package servertest

import (
	"slices"
	"strings"
)

// Token ids below 256 are bytes. The special ones follow, and then the pieces of text.
const (
	tokenBegin = 256 + iota
	tokenEnd
	tokenSystem
	tokenUser
	tokenAssistant
	tokenTool
	tokenRefusal
	tokenThink
	tokenThought
	tokenCall
	tokenCalled
	firstPiece
)

// specials is how special tokens are written, by id from tokenBegin on.
var specials = []string{
	"<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|refusal|>",
	"<think>", "</think>", "<tool_call>", "</tool_call>",
}

var (
	words = strings.Fields(`the a fox river stone winter garden lamp bird paper harbour cloud iron morning letter road silver window music
		field bread shadow wheel copper island number song forest engine salt mirror candle runs sleeps turns carries opens answers waits
		follows keeps breaks slowly often never quietly again under over beside beyond before after small old bright hollow early blue
		able seen turn doing`)
	prefixes    = []string{"un", "re", "over", "out"}
	stems       = []string{"seen", "turn", "doing", "able", "bird", "lamp"}
	endings     = []string{"ing", "er", "ly", "s", "ed"}
	punctuation = []string{",", ".", ";", " -", "\n"}
	characters  = []string{"é", "ü", "ñ", "日", "本", "語", "🙂", "🚀", "🌍"}
	structure   = []string{"[[", "]]", `{"`, `": "`, `": `, `", "`, `"}`, "}", "name", "arguments", "query", "answer", "topic", "tools:"}
)

// vocabulary is the tokens of all models here.
type vocabulary struct {
	pieces  []string // by id less firstPiece
	ids     map[string]int
	longest int // bytes of a piece

	words      []int // ids of what is drawn from, in the order of their pieces
	fragments  []int
	marks      []int
	leads      []int // first bytes of the characters
	closing    int   // "]]"
	wholeChars []string
}

var theVocabulary = newVocabulary()

func newVocabulary() *vocabulary {
	v := &vocabulary{ids: make(map[string]int), wholeChars: characters}
	for _, word := range words {
		v.words = append(v.words, v.add(" "+word))
	}
	for _, prefix := range prefixes {
		v.fragments = append(v.fragments, v.add(" "+prefix))
		for _, stem := range stems { // one word when read, two tokens when made
			v.add(" " + prefix + stem)
		}
	}
	for _, part := range slices.Concat(stems, endings) {
		v.fragments = append(v.fragments, v.add(part))
	}
	for _, word := range words[:20] {
		v.add(" " + word + "s")
	}
	for _, mark := range punctuation {
		v.marks = append(v.marks, v.add(mark))
	}
	for _, part := range structure {
		v.add(part)
	}
	v.closing = v.ids["]]"]
	for _, char := range characters {
		if lead := int(char[0]); !slices.Contains(v.leads, lead) {
			v.leads = append(v.leads, lead)
		}
	}
	return v
}

func (v *vocabulary) add(piece string) int {
	if id, known := v.ids[piece]; known {
		return id
	}
	id := firstPiece + len(v.pieces)
	v.pieces = append(v.pieces, piece)
	v.ids[piece] = id
	v.longest = max(v.longest, len(piece))
	return id
}

// size is the number of tokens.
func (v *vocabulary) size() int { return firstPiece + len(v.pieces) }

// text is what a token stands for, special ones included; empty for one that there is not.
func (v *vocabulary) text(token int) string {
	switch {
	case token < 0 || token >= v.size():
		return ""
	case token < tokenBegin:
		return string([]byte{byte(token)})
	case token < firstPiece:
		return specials[token-tokenBegin]
	default:
		return v.pieces[token-firstPiece]
	}
}

// visible is what a token adds to the text of a completion: nothing for the tokens that make up a chat.
func (v *vocabulary) visible(token int) string {
	if token >= tokenBegin && token < tokenThink {
		return ""
	}
	return v.text(token)
}

// encode is the tokens of a text: the longest piece that fits, again and again. With special, what is written like a special token is one.
func (v *vocabulary) encode(text string, special bool) []int {
	tokens := make([]int, 0, len(text)/4+1)
	for len(text) > 0 {
		token, size := v.longestPiece(text, special)
		tokens = append(tokens, token)
		text = text[size:]
	}
	return tokens
}

func (v *vocabulary) longestPiece(text string, special bool) (token, size int) {
	if special && text[0] == '<' {
		for i, name := range specials {
			if strings.HasPrefix(text, name) {
				return tokenBegin + i, len(name)
			}
		}
	}
	for size := min(v.longest, len(text)); size > 0; size-- {
		if id, known := v.ids[text[:size]]; known {
			return id, size
		}
	}
	return int(text[0]), 1
}

// decode is the text of tokens, special ones included.
func (v *vocabulary) decode(tokens []int) string {
	var text strings.Builder
	for _, token := range tokens {
		text.WriteString(v.text(token))
	}
	return text.String()
}

// following is the bytes that may come after the beginning of a character.
func (v *vocabulary) following(begun []byte) []int {
	var next []int
	for _, char := range v.wholeChars {
		if len(char) > len(begun) && strings.HasPrefix(char, string(begun)) {
			if b := int(char[len(begun)]); !slices.Contains(next, b) {
				next = append(next, b)
			}
		}
	}
	return next
}
