package upstream

import (
	"bytes"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// divergence says where an answer that is made again first differs from what the stream has. It wraps engine.ErrDiverged.
type divergence struct {
	choice  int
	channel engine.Channel
	call    int    // of a tool call: its index
	at      int    // bytes of the choice's text on that channel, or of the call's arguments, that are equal
	here    string // what the answer has there: some of it
	there   string // what the stream has
}

func (d *divergence) Error() string {
	where := channelNames[d.channel]
	if d.channel == engine.ToolCall {
		where = fmt.Sprintf("%s %d", where, d.call)
	}
	return fmt.Sprintf("%v: %s of choice %d, byte %d: %s here and %s in the stream", engine.ErrDiverged, where, d.choice, d.at, d.here, d.there)
}

func (d *divergence) Unwrap() error { return engine.ErrDiverged }

// channelNames are those of the channels, for people.
var channelNames = [wire.Channels]string{engine.Content: "content", engine.Reasoning: "reasoning", engine.Refusal: "refusal", engine.ToolCall: "tool call"}

// comparer compares an answer that is made again with what a stream has of it: in each choice the bytes of its channels, in the order
// of the channels, and the name and the arguments of each tool call. Where the chunks have their borders does not matter, nor does the
// order between choices, or between the tool calls of one. What is new goes out once all that the stream has was made again.
type comparer struct {
	passages []*passage // by choice; nil where nothing is known of one
	open     int        // spans that were not made again yet, of all choices
	total    int        // tokens of the stream that are to be made again
	ahead    []piece    // what is new
	strict   bool       // the tokens have to be the same ones, too, where both have their ids
}

// passage is one choice of an answer.
type passage struct {
	spans []span // that the stream has, and that were not made again yet
	there calls  // that the stream has
	here  calls  // that the answer has
	equal map[spanKey]int
	tokens
	logprobs
}

// span is a text of a stream between two changes of its channel, or of the tool call.
type span struct {
	spanKey
	text []byte
}

type spanKey struct {
	channel engine.Channel
	call    int  // of a tool call: its index
	name    bool // of a tool call: the text is the name of the tool, all of it
}

// piece is a piece of an answer.
type piece struct {
	api.Delta
	spanKey
}

// calls are which tool calls of a choice have begun.
type calls struct {
	now   int
	begun map[int]bool
}

// place returns where a text belongs. The first one of a tool call is its name.
func (c *calls) place(channel engine.Channel, call *wire.Call) spanKey {
	if channel != engine.ToolCall {
		return spanKey{channel: channel}
	}
	if call != nil {
		c.now = call.Index
	}
	key := spanKey{channel: channel, call: c.now, name: !c.begun[c.now]}
	if key.name {
		if c.begun == nil {
			c.begun = make(map[int]bool)
		}
		c.begun[c.now] = true
	}
	return key
}

func (c *comparer) passage(choice int) *passage {
	for choice >= len(c.passages) {
		c.passages = append(c.passages, nil)
	}
	if c.passages[choice] == nil {
		c.passages[choice] = &passage{equal: make(map[spanKey]int)}
	}
	return c.passages[choice]
}

// extend takes what the stream has more, which is to be made again, and compares it with what is there of the answer.
func (c *comparer) extend(chunks []engine.Chunk) error {
	ahead := c.ahead
	c.ahead = nil
	for i := range chunks {
		c.expect(&chunks[i])
	}
	for _, p := range ahead {
		if err := c.match(p); err != nil {
			return err
		}
	}
	for _, p := range c.passages {
		if p != nil {
			p.tokens.again()
			p.logprobs.again()
		}
	}
	return nil
}

// expect takes one chunk of the stream.
func (c *comparer) expect(chunk *engine.Chunk) {
	p := c.passage(chunk.Choice)
	n := chunk.Count()
	c.total += n
	p.tokens.expect(chunk.TokenIDs, n)
	var detail *wire.Detail
	if len(chunk.Data) > 0 {
		if detail = wire.ParseDetail(chunk.Data); detail != nil {
			p.logprobs.expect(detail.Logprobs)
		}
	}
	var call *wire.Call
	if detail != nil {
		call = detail.Call
	}
	key := p.there.place(chunk.Channel, call)
	if len(chunk.Text) == 0 && !key.name {
		return
	}
	if last := len(p.spans) - 1; last >= 0 && p.spans[last].spanKey == key && !key.name {
		p.spans[last].text = append(p.spans[last].text, chunk.Text...)
		return
	}
	p.spans = append(p.spans, span{key, chunk.Text[:len(chunk.Text):len(chunk.Text)]}) // to append to it is to copy it
	c.open++
}

// take takes the next piece of the answer.
func (c *comparer) take(d api.Delta) error {
	p := c.passage(d.Choice)
	return c.match(piece{d, p.here.place(d.Channel, d.Call)})
}

// match takes from what was not made again yet what a piece has of it. The rest of the piece is new.
func (c *comparer) match(new piece) error {
	p := c.passage(new.Choice)
	p.tokens.take(new.IDs, new.Tokens)
	p.logprobs.take(new.Logprobs)
	if c.strict && p.tokens.differ {
		return p.otherTokens(&new)
	}
	silent := len(new.Text) == 0 && !new.name
	for len(p.spans) > 0 && !silent {
		i, err := p.find(&new)
		if err != nil {
			return err
		}
		if i < 0 {
			break
		}
		if err := c.compare(p, i, &new); err != nil {
			return err
		}
		if len(new.Text) == 0 {
			return nil
		}
	}
	if silent && len(p.spans) > 0 {
		return nil
	}
	new.IDs, new.Tokens = p.tokens.rest()
	new.Logprobs = p.logprobs.rest()
	if !silent || new.Tokens > 0 || len(parse(new.Logprobs)) > 0 {
		c.ahead = append(c.ahead, new)
	}
	return nil
}

// find returns which span a piece has to be equal to; negative if none, because it is of a tool call that the stream has no more of.
func (p *passage) find(new *piece) (int, error) {
	if new.channel != engine.ToolCall {
		if p.spans[0].channel != new.channel {
			return 0, p.differs(new, 0)
		}
		return 0, nil
	}
	for i := range p.spans {
		switch s := &p.spans[i]; {
		case s.channel != engine.ToolCall:
			return 0, p.differs(new, i)
		case s.call == new.call:
			return i, nil
		}
	}
	return -1, nil
}

// compare compares a piece with a span, as far as both go, and takes that from both.
func (c *comparer) compare(p *passage, i int, new *piece) error {
	s := &p.spans[i]
	n := min(len(s.text), len(new.Text))
	if s.name != new.name || s.name && !bytes.Equal(s.text, new.Text) {
		return p.differs(new, i)
	}
	if !bytes.Equal(s.text[:n], new.Text[:n]) {
		for n = 0; s.text[n] == new.Text[n]; n++ {
			continue
		}
		p.equal[new.spanKey] += n
		s.text, new.Text = s.text[n:], new.Text[n:]
		return p.differs(new, i)
	}
	if !s.name {
		p.equal[new.spanKey] += n
	}
	if new.Text = new.Text[n:]; n < len(s.text) {
		s.text = s.text[n:]
		return nil
	}
	p.spans = append(p.spans[:i], p.spans[i+1:]...)
	c.open--
	return nil
}

// differs returns the divergence where the answer has a piece and the stream a span.
func (p *passage) differs(new *piece, i int) error {
	s := &p.spans[i]
	return &divergence{
		choice: new.Choice, channel: s.channel, call: s.call, at: p.equal[spanKey{channel: s.channel, call: s.call}],
		here: describe(new.spanKey, new.Text), there: describe(s.spanKey, s.text),
	}
}

// otherTokens returns the divergence where the answer has a piece whose tokens are not those of the stream.
func (p *passage) otherTokens(new *piece) error {
	return &divergence{
		choice: new.Choice, channel: new.channel, call: new.call, at: p.equal[spanKey{channel: new.channel, call: new.call}],
		here: fmt.Sprintf("tokens %d", new.IDs), there: "others",
	}
}

// shown is how many bytes of a text a divergence shows.
const shown = 24

func describe(key spanKey, text []byte) string {
	what := channelNames[key.channel]
	if key.name {
		what = "tool"
	}
	return fmt.Sprintf("%s %q", what, text[:min(len(text), shown)])
}

// ended says that the answer is complete. It may not be shorter than what the stream has.
func (c *comparer) ended() error {
	for choice, p := range c.passages {
		if p == nil || len(p.spans) == 0 {
			continue
		}
		s := p.spans[0]
		return &divergence{
			choice: choice, channel: s.channel, call: s.call, at: p.equal[spanKey{channel: s.channel, call: s.call}],
			here: "the end", there: describe(s.spanKey, s.text),
		}
	}
	return nil
}

// matched reports whether all that the stream has was made again.
func (c *comparer) matched() bool { return c.open == 0 }

// next returns the next new piece, once all that the stream has was made again.
func (c *comparer) next() (new piece, ok bool) {
	if c.open > 0 || len(c.ahead) == 0 {
		return piece{}, false
	}
	new = c.ahead[0]
	c.ahead[0] = piece{}
	if c.ahead = c.ahead[1:]; len(c.ahead) == 0 {
		c.ahead = nil
	}
	if new.channel == engine.ToolCall {
		c.passages[new.Choice].there.place(new.channel, &wire.Call{Index: new.call}) // the stream has it now
	}
	return new, true
}

// progress returns how many of the tokens of the stream were made again.
func (c *comparer) progress() (made, of int) {
	made = c.total
	for _, p := range c.passages {
		if p != nil {
			made -= p.tokens.owed
		}
	}
	return made, c.total
}
