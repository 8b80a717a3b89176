package openai

import (
	"encoding/json"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// chatStream writes a chat completion, or a completion, as events.
type chatStream struct {
	*events
	*exchange
	head  string // of each chunk: from the brace to its choices
	tail  string // of each chunk: what follows them
	roles int    // choices that have said their role
}

// newChatStream returns the encoder of a chat, or of a completion.
func newChatStream(e *exchange, out *events) *chatStream {
	object := "chat.completion.chunk"
	if e.ask.api == completions {
		object = "text_completion"
	}
	c := &chatStream{events: out, exchange: e, tail: "}"}
	c.head = string(e.head(object)) + `,"choices":[`
	if e.ask.usage {
		c.tail = `,"usage":null}`
	}
	return c
}

// chunk begins a chunk of one choice.
func (c *chatStream) chunk(choice int) {
	c.begin("")
	c.raw(c.head)
	c.raw(`{"index":`)
	c.integer(choice)
}

// endChunk ends it, with its log probabilities and finish reason; nil and empty for none.
func (c *chatStream) endChunk(logp []byte, finish string) {
	c.raw(`,"logprobs":`)
	if logp == nil {
		c.raw("null")
	} else {
		c.data(logp)
	}
	if finish == "" {
		c.raw(`,"finish_reason":null}]`)
	} else {
		c.raw(`,"finish_reason":`)
		c.text([]byte(finish))
		c.raw("}]")
	}
	c.raw(c.tail)
	c.end()
}

// role says the role of each choice, before anything else is said of it.
func (c *chatStream) role() {
	if c.ask.api == completions {
		return
	}
	for ; c.roles < int(c.ask.request.GetChoices()); c.roles++ {
		c.chunk(c.roles)
		c.raw(`,"delta":{"role":"assistant","content":""}`)
		c.endChunk(nil, "")
	}
}

// texts are the fields of a chat's delta, by channel.
var texts = [wire.Channels]string{wire.Content: "content", wire.Reasoning: "reasoning", wire.Refusal: "refusal"}

func (c *chatStream) delta(d *delta) {
	c.role()
	c.chunk(d.choice)
	switch {
	case c.ask.api == completions:
		c.raw(`,"text":`)
		c.text(d.text)
	case d.channel == wire.ToolCall:
		c.raw(`,"delta":{"tool_calls":[`)
		c.toolCall(d)
		c.raw("]}")
	default:
		c.raw(`,"delta":{"`)
		c.raw(texts[d.channel])
		c.raw(`":`)
		c.text(d.text)
		c.raw("}")
	}
	c.endChunk(d.logp, "")
}

// toolCall writes a piece of a tool call: id, type and name come with the first one only.
func (c *chatStream) toolCall(d *delta) {
	name, input := "name", "arguments"
	if d.call.kind == wire.CallCustom {
		input = "input"
	}
	c.raw(`{"index":`)
	c.integer(d.call.index)
	if d.begins {
		c.raw(`,"id":`)
		c.text([]byte(c.callID(d.choice, d.call.index)))
		c.raw(`,"type":"` + d.call.kind + `","` + d.call.kind + `":{"` + name + `":`)
		c.text(d.text)
		c.raw(`,"` + input + `":""}}`)
		return
	}
	c.raw(`,"` + d.call.kind + `":{"` + input + `":`)
	c.text(d.text)
	c.raw("}}")
}

func (c *chatStream) finish(done *wirepb.Done) {
	c.role()
	for choice := range int(c.ask.request.GetChoices()) {
		c.chunk(choice)
		if c.ask.api == completions {
			c.raw(`,"text":""`)
		} else {
			c.raw(`,"delta":{}`)
		}
		c.endChunk(nil, reasonOf(done, choice))
	}
	if c.ask.usage {
		c.begin("")
		c.raw(c.head)
		c.raw(`],"usage":`)
		c.data(c.usage(done))
		if c.told {
			c.raw(`,"connswap":`)
			c.data(c.outcome(done))
		}
		c.raw("}")
		c.end()
	}
	c.begin("")
	c.raw("[DONE]")
	c.end()
}

func (c *chatStream) fail(err *wire.Error) {
	c.begin("")
	c.data(interrupted(err).body())
	c.end()
}

// reasonOf returns the finish reason of a choice.
func reasonOf(done *wirepb.Done, choice int) string {
	if reasons := done.GetFinishReasons(); choice < len(reasons) {
		return reasons[choice]
	}
	return done.GetFinishReason()
}

// usage is what a chat took, as JSON.
func (e *exchange) usage(done *wirepb.Done) []byte {
	type details struct {
		Cached    *uint64 `json:"cached_tokens,omitempty"`
		Reasoning *uint64 `json:"reasoning_tokens,omitempty"`
	}
	u := e.usageOf(done)
	b, _ := json.Marshal(struct { // numbers always can be
		Prompt     uint64  `json:"prompt_tokens"`
		Completion uint64  `json:"completion_tokens"`
		Total      uint64  `json:"total_tokens"`
		InPrompt   details `json:"prompt_tokens_details"`
		InText     details `json:"completion_tokens_details"`
	}{
		u.GetPromptTokens(), u.GetCompletionTokens(), u.GetPromptTokens() + u.GetCompletionTokens(),
		details{Cached: &u.CachedTokens},
		details{Reasoning: &u.ReasoningTokens},
	})
	return b
}

// chatWhole collects a chat completion, or a completion, and makes one document of it.
type chatWhole struct {
	*exchange
	choices []*whole
	body    []byte // once it is complete
	err     *wire.Error
}

// whole is one choice.
type whole struct {
	texts [wire.Channels][]byte
	calls []*wholeCall
	logps []json.RawMessage
}

type wholeCall struct {
	call
	name, input []byte
}

func newChatWhole(e *exchange) *chatWhole {
	c := &chatWhole{exchange: e, choices: make([]*whole, e.ask.request.GetChoices())}
	for i := range c.choices {
		c.choices[i] = &whole{}
	}
	return c
}

func (c *chatWhole) delta(d *delta) {
	if c.ask.api == completions { // they have one text for all that is said, as their streams
		d.channel = wire.Content
	}
	c.choices[d.choice].add(d)
}

func (w *whole) add(d *delta) {
	if d.logp != nil {
		w.logps = append(w.logps, append([]byte(nil), d.logp...))
	}
	switch {
	case d.channel != wire.ToolCall:
		w.texts[d.channel] = append(w.texts[d.channel], d.text...)
	case d.begins:
		w.calls = append(w.calls, &wholeCall{call: *d.call, name: append([]byte(nil), d.text...)})
	default:
		of := w.calls[d.call.index]
		of.input = append(of.input, d.text...)
	}
}

func (c *chatWhole) fail(err *wire.Error) { c.err = err }

// chatMessage is the message of a choice.
type chatMessage struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"`
	Refusal   *string    `json:"refusal"`
	Reasoning string     `json:"reasoning,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

// toolCall is one of a whole message.
type toolCall struct {
	ID       string        `json:"id"`
	Type     string        `json:"type"`
	Function *calledByName `json:"function,omitempty"`
	Custom   *calledByText `json:"custom,omitempty"`
}

type calledByName struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type calledByText struct {
	Name  string `json:"name"`
	Input string `json:"input"`
}

func (c *chatWhole) finish(done *wirepb.Done) {
	type choice struct {
		Index    int             `json:"index"`
		Message  *chatMessage    `json:"message,omitempty"`
		Text     *string         `json:"text,omitempty"`
		Logprobs json.RawMessage `json:"logprobs"`
		Finish   string          `json:"finish_reason"`
	}
	object := "chat.completion"
	all := make([]choice, len(c.choices))
	for i, w := range c.choices {
		all[i] = choice{Index: i, Logprobs: joined(w.logps), Finish: reasonOf(done, i)}
		if c.ask.api == completions {
			object = "text_completion"
			text := string(w.texts[wire.Content])
			all[i].Text = &text
		} else {
			all[i].Message = c.message(i, w)
		}
	}
	b := c.head(object)
	b = append(b, `,"choices":`...)
	list, _ := json.Marshal(all) // log probabilities were parsed before
	b = append(append(b, list...), `,"usage":`...)
	b = append(b, c.usage(done)...)
	if c.told {
		b = append(append(b, `,"connswap":`...), c.outcome(done)...)
	}
	c.body = append(b, '}')
}

// message is that of one choice. Its content is null where it has nothing but tool calls or a refusal.
func (c *chatWhole) message(choice int, w *whole) *chatMessage {
	m := &chatMessage{Role: "assistant", Reasoning: string(w.texts[wire.Reasoning])}
	if content := string(w.texts[wire.Content]); content != "" || len(w.calls) == 0 && len(w.texts[wire.Refusal]) == 0 {
		m.Content = &content
	}
	m.Refusal = orNull(string(w.texts[wire.Refusal]))
	for _, of := range w.calls {
		t := toolCall{ID: c.callID(choice, of.index), Type: of.kind}
		if of.kind == wire.CallCustom {
			t.Custom = &calledByText{string(of.name), string(of.input)}
		} else {
			t.Function = &calledByName{string(of.name), string(of.input)}
		}
		m.ToolCalls = append(m.ToolCalls, t)
	}
	return m
}

// joined joins log probabilities, whose lists follow each other; null for none.
func joined(all []json.RawMessage) json.RawMessage {
	if len(all) == 0 {
		return json.RawMessage("null")
	}
	lists := map[string][]json.RawMessage{}
	for _, one := range all {
		var parts map[string][]json.RawMessage
		if json.Unmarshal(one, &parts) != nil {
			continue
		}
		for name, list := range parts {
			lists[name] = append(lists[name], list...)
		}
	}
	b, _ := json.Marshal(lists) // it was parsed before
	return b
}
