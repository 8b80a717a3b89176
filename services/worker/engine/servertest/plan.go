package servertest

import (
	"regexp"
	"strconv"
	"strings"
)

// plan is what kind of answer a prompt wants.
type plan struct {
	think  int // tokens of reasoning
	length int // tokens of content
	calls  int // of tools
	tools  []string
	refuse bool
	emoji  bool
}

var (
	directive   = regexp.MustCompile(`\[\[(\w+)(?: (\d+))?\]\]`)
	listOfTools = regexp.MustCompile(`<\|system\|>tools: ([^<]*)<\|end\|>`)
)

// newPlan reads a prompt; length is for one that does not say any.
func newPlan(prompt string, length int) plan {
	p := plan{length: length}
	if listed := listOfTools.FindStringSubmatch(prompt); listed != nil {
		p.tools = strings.Split(listed[1], ", ")
		p.calls = 1
	}
	talk := false
	for _, match := range directive.FindAllStringSubmatch(prompt, -1) {
		number, _ := strconv.Atoi(match[2]) // none is 0
		switch match[1] {
		case "think":
			p.think = number
		case "length":
			p.length = number
		case "calls":
			p.calls = number
		case "refuse":
			p.refuse = true
		case "emoji":
			p.emoji = true
		case "talk":
			talk = true
		}
	}
	if talk || len(p.tools) == 0 {
		p.calls = 0
	}
	return p
}

// script is a text of which a part is given: a tool call, or what a grammar enforces.
type script struct {
	before, after []int
	words         int // that the model chooses, between the two
}

// at returns the token at a place, or that the model may choose a word there, or that the script has ended.
func (s script) at(place int) (token int, free, ended bool) {
	switch {
	case place < len(s.before):
		return s.before[place], false, false
	case place < len(s.before)+s.words:
		return 0, true, false
	case place < len(s.before)+s.words+len(s.after):
		return s.after[place-len(s.before)-s.words], false, false
	default:
		return 0, false, true
	}
}

// callOf is the script of a call of a tool; more makes its number of words vary.
func callOf(tool string, more uint64) script {
	return script{
		before: theVocabulary.encode(`{"name": "`+tool+`", "arguments": {"query": "`, false),
		words:  3 + int(more%5),
		after:  theVocabulary.encode(`"}}`, false),
	}
}

// jsonAnswer is what the grammar of a response_format allows.
func jsonAnswer(more uint64) *script {
	return &script{
		before: theVocabulary.encode(`{"topic": "`, false),
		words:  6 + int(more%9),
		after:  theVocabulary.encode(`", "answer": 42}`, false),
	}
}
