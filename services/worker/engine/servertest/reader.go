package servertest

import (
	"strings"
	"unicode/utf8"
)

// channel is which part of an answer a piece belongs to.
type channel uint8

const (
	contentChannel channel = iota
	reasoningChannel
	refusalChannel
	callChannel
)

// piece is what came of one token; of several, where a kind does not put each out.
type piece struct {
	text    int // which of the texts
	channel channel
	content string // whole characters; arguments in a call
	partial bool   // the token was part of a character that is not whole yet
	chosen  []choice

	call   int    // index of the call
	name   string // at the beginning of a call
	callID string

	finish string // at the end
	stop   string // the stop string that it was for
}

// ids are the tokens of the piece.
func (p *piece) ids() []int {
	ids := make([]int, len(p.chosen))
	for i, chosen := range p.chosen {
		ids[i] = chosen.token
	}
	return ids
}

// empty says whether there is nothing for a client to see.
func (p *piece) empty() bool { return p.content == "" && p.name == "" && p.finish == "" }

// reader makes pieces of the tokens of one text.
type reader struct {
	text     int
	chat     bool // special tokens choose the channel
	stops    []string
	newCall  func() string // draws an id
	channel  channel
	bytes    []byte // of a character that is not whole yet
	withheld string // may be the beginning of a stop string
	calls    int
	call     callReader
}

// read takes a token. The piece has a finish if a stop string was found.
func (r *reader) read(chosen choice) piece {
	p := piece{text: r.text, chosen: []choice{chosen}}
	if r.chat && chosen.token >= tokenBegin && chosen.token < firstPiece {
		r.turn(chosen.token)
		p.channel, p.call = r.channel, max(0, r.calls-1)
		return p
	}
	p.channel, p.call = r.channel, max(0, r.calls-1)
	p.content = r.whole(theVocabulary.visible(chosen.token))
	p.partial = len(r.bytes) > 0
	switch r.channel {
	case callChannel:
		if p.name, p.content = r.call.read(p.content); p.name != "" {
			p.callID = r.newCall()
		}
	case contentChannel:
		p.content, p.stop = r.untilStop(p.content)
		if p.stop != "" {
			p.finish = "stop"
		}
	default:
	}
	return p
}

// turn follows the special tokens of an answer.
func (r *reader) turn(token int) {
	switch token {
	case tokenThink:
		r.channel = reasoningChannel
	case tokenRefusal:
		r.channel = refusalChannel
	case tokenCall:
		r.channel, r.call = callChannel, callReader{}
		r.calls++
	default:
		r.channel = contentChannel
	}
}

// whole returns the characters that are whole with these bytes.
func (r *reader) whole(more string) string {
	r.bytes = append(r.bytes, more...)
	n := 0
	for n < len(r.bytes) && utf8.FullRune(r.bytes[n:]) {
		_, size := utf8.DecodeRune(r.bytes[n:])
		n += size
	}
	text := strings.ToValidUTF8(string(r.bytes[:n]), "\uFFFD")
	r.bytes = append(r.bytes[:0], r.bytes[n:]...)
	return text
}

// untilStop returns what may be shown now, and the stop string that ends the text.
func (r *reader) untilStop(more string) (text, stop string) {
	text = r.withheld + more
	first := len(text)
	for _, s := range r.stops {
		if i := strings.Index(text, s); s != "" && i >= 0 && i < first {
			first, stop = i, s
		}
	}
	if stop != "" {
		r.withheld = ""
		return text[:first], stop
	}
	keep := 0
	for _, s := range r.stops {
		for n := min(len(s)-1, len(text)); n > keep; n-- {
			if strings.HasSuffix(text, s[:n]) {
				keep = n
			}
		}
	}
	r.withheld = text[len(text)-keep:]
	return text[:len(text)-keep], ""
}

// end returns what was withheld.
func (r *reader) end() string {
	text := r.withheld
	r.withheld = ""
	return text
}

// callReader takes the JSON of a call apart.
type callReader struct {
	head  string // until the arguments begin
	begun bool
	depth int // of braces in the arguments
}

// read returns the name, once it is known, and pieces of the arguments.
func (c *callReader) read(text string) (name, arguments string) {
	if !c.begun {
		const before, between = `{"name": "`, `", "arguments": `
		c.head += text
		i := strings.Index(c.head, between)
		if i < 0 {
			return "", ""
		}
		name, text = strings.TrimPrefix(c.head[:i], before), c.head[i+len(between):]
		c.begun = true
	}
	for i := range len(text) {
		switch text[i] {
		case '{':
			c.depth++
		case '}':
			if c.depth == 0 { // the call's own
				return name, text[:i]
			}
			c.depth--
		}
	}
	return name, text
}
