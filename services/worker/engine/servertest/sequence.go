package servertest

import (
	"hash/fnv"
	"slices"
	"unicode/utf8"
)

type phase uint8

const (
	asked     phase = iota // nothing has been answered yet, or there is no telling
	answering              // content
	thinking
	calling
)

// sequence is a prompt and what the model has made of it. What comes next is a function of the weights and of the tokens; only a grammar
// is beside that, and begins with the request.
type sequence struct {
	hash    uint64 // of weights and tokens
	tokens  []int
	prompt  int    // how many of them came with the request
	text    []byte // of the tokens
	pending []byte // the beginning of a character
	usual   int    // length of an answer, about

	plan    plan
	phase   phase
	chat    bool // the answer began with <|assistant|>
	thought int  // tokens of reasoning
	done    bool // with the reasoning
	refused bool
	made    int // tokens of content
	call    script
	inCall  int // tokens of the call
	called  int

	grammar *script
	ruled   int // tokens made by the grammar
}

func newSequence(weights string, usual int, prompt []int, ruled bool) *sequence {
	h := fnv.New64a()
	_, _ = h.Write([]byte(weights)) // never fails
	s := &sequence{hash: h.Sum64(), usual: usual}
	for _, token := range prompt {
		s.push(token)
	}
	s.prompt = len(prompt)
	if ruled {
		s.grammar = jsonAnswer(s.hash)
	}
	return s
}

// mix is a step of a hash, with all bits of the result depending on all bits of both (the finalizer of splitmix64).
func mix(a, b uint64) uint64 {
	x := a ^ (b + 0x9e3779b97f4a7c15 + a<<6 + a>>2)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// push appends a token.
func (s *sequence) push(token int) {
	ruled := s.grammar != nil && s.atContent()
	s.tokens = append(s.tokens, token)
	s.hash = mix(s.hash, uint64(token))
	s.text = append(s.text, theVocabulary.text(token)...)
	s.complete(token)
	if ruled {
		s.ruled++
	}
	switch token {
	case tokenAssistant:
		s.begin(true)
	case tokenSystem, tokenUser, tokenTool:
		s.phase, s.chat = asked, false
	case theVocabulary.closing:
		if !s.chat {
			s.begin(false)
		}
	default:
		s.advance(token)
	}
}

// complete follows the bytes of characters.
func (s *sequence) complete(token int) {
	if token < utf8.RuneSelf || token >= tokenBegin {
		s.pending = s.pending[:0]
		return
	}
	s.pending = append(s.pending, byte(token))
	if utf8.FullRune(s.pending) {
		s.pending = s.pending[:0]
	}
}

// begin is where a question ends.
func (s *sequence) begin(chat bool) {
	length := s.usual*3/4 + int(s.hash%uint64(s.usual/2+1))
	s.plan = newPlan(string(s.text), length)
	s.phase, s.chat = answering, chat
	s.thought, s.made, s.called = 0, 0, 0
	s.done, s.refused = s.plan.think == 0, false
}

// advance follows an answer.
func (s *sequence) advance(token int) {
	switch {
	case s.phase == asked:
	case token == tokenThink:
		s.phase = thinking
	case token == tokenThought:
		s.phase, s.done = answering, true
	case token == tokenCall:
		s.phase, s.inCall = calling, 0
		if len(s.plan.tools) > 0 {
			s.call = callOf(s.plan.tools[s.called%len(s.plan.tools)], s.hash)
		}
	case token == tokenCalled:
		s.phase = answering
		s.called++
	case token == tokenRefusal:
		s.refused = true
	case s.phase == thinking:
		s.thought++
	case s.phase == calling:
		s.inCall++
	default:
		s.made++
	}
}

// atContent says whether the next token is content, where a grammar applies.
func (s *sequence) atContent() bool {
	return s.phase == asked || s.phase == answering && s.done && s.plan.calls == 0
}

// candidates returns what the next token may be, the likeliest first. salt makes the same model another one. With goOn, the end of the
// text is no candidate.
func (s *sequence) candidates(salt uint64, goOn bool) []int {
	if len(s.pending) > 0 {
		if next := theVocabulary.following(s.pending); len(next) > 0 {
			return rotate(next, s.hash^salt)
		}
	}
	token, free, wordsOnly := s.forced()
	if !free && (token != tokenEnd || !goOn) {
		return []int{token}
	}
	return s.likely(s.hash^salt, wordsOnly)
}

// forced returns the only token that may come next, or that there are several; wordsOnly says that they are words.
func (s *sequence) forced() (token int, free, wordsOnly bool) {
	if s.grammar != nil && s.atContent() {
		token, free, ended := s.grammar.at(s.ruled)
		if ended {
			return tokenEnd, false, false
		}
		return token, free, true
	}
	switch s.phase {
	case asked:
		return tokenEnd, s.hash>>9%uint64(s.usual) != 0, false
	case thinking:
		return tokenThought, s.thought < s.plan.think, false
	case calling:
		token, free, ended := s.call.at(s.inCall)
		if ended {
			return tokenCalled, false, true
		}
		return token, free, true
	default:
		return s.forcedContent()
	}
}

func (s *sequence) forcedContent() (token int, free, wordsOnly bool) {
	switch {
	case !s.done:
		return tokenThink, false, false
	case s.plan.refuse && !s.refused:
		return tokenRefusal, false, false
	case s.called < s.plan.calls:
		return tokenCall, false, false
	case s.plan.calls > 0:
		return tokenEnd, false, false
	default:
		return tokenEnd, s.made < s.plan.length, false
	}
}

// candidateCount is how many tokens may come next where nothing is forced.
const candidateCount = 8

func (s *sequence) likely(hash uint64, wordsOnly bool) []int {
	tokens := make([]int, 0, candidateCount)
	for i := uint64(0); len(tokens) < candidateCount; i++ {
		if token := s.draw(mix(hash, i), wordsOnly); !slices.Contains(tokens, token) {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// draw is one token that may come next.
func (s *sequence) draw(hash uint64, wordsOnly bool) int {
	v := theVocabulary
	from, percent := v.words, hash>>32%100
	rare := uint64(4)
	if s.plan.emoji {
		rare = 45
	}
	switch {
	case wordsOnly:
	case percent < rare && s.room() >= utf8.UTFMax:
		from = v.leads
	case percent < rare+25:
		from = v.fragments
	case percent < rare+35:
		from = v.marks
	}
	return from[hash%uint64(len(from))]
}

// room is how many tokens fit before the end of a part of known length.
func (s *sequence) room() int {
	switch s.phase {
	case thinking:
		return s.plan.think - s.thought
	case answering:
		return s.plan.length - s.made
	case calling:
		return 0
	default:
		return utf8.UTFMax
	}
}

// rotate returns the tokens in an order that depends on the hash.
func rotate(tokens []int, hash uint64) []int {
	n := int(hash % uint64(len(tokens)))
	return slices.Concat(tokens[n:], tokens[:n])
}
