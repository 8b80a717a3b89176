package openai

import (
	"encoding/json"
	"fmt"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// response collects a response, and writes it as events if there is somewhere to. Its output is a list of items, of which the
// last one may be open.
type response struct {
	*events // nil for none
	*exchange
	begun bool
	items []*item
	body  []byte // the whole response, once that is over
	err   *wire.Error
}

// item is one of a response's output: a message, reasoning, or a tool call.
type item struct {
	kind  string
	id    string
	index int
	parts []*part // of a message
	text  []byte  // of reasoning, or what a tool is called with
	call  *call   // of a tool call
	name  string  // of its tool
	over  bool    // nothing more comes
}

// part is one of a message: text, or a refusal.
type part struct {
	kind  string
	text  []byte
	logps []json.RawMessage
}

// Kinds of items and parts.
const (
	messageItem   = "message"
	reasoningItem = "reasoning"
	functionItem  = "function_call"
	customItem    = "custom_tool_call"
	textPart      = "output_text"
	refusalPart   = "refusal"
	reasoningPart = "reasoning_text"
)

// prefixes of the ids of items.
var prefixes = map[string]string{messageItem: "msg_", reasoningItem: "rs_", functionItem: "fc_", customItem: "ctc_"}

func newResponse(e *exchange, out *events) *response { return &response{events: out, exchange: e} }

func (r *response) document() ([]byte, *wire.Error) { return r.body, r.err }

// event writes an event with some fields, each a name and what can be JSON.
func (r *response) event(name string, fields ...any) {
	if r.events == nil {
		return
	}
	r.beginEvent(name)
	for i := 0; i < len(fields); i += 2 {
		b, _ := json.Marshal(fields[i+1]) // made here, or parsed before
		r.raw(`,"` + fields[i].(string) + `":`)
		r.data(b)
	}
	r.endEvent()
}

func (r *response) beginEvent(name string) {
	r.begin(name)
	r.raw(`{"type":"`)
	r.raw(name)
	r.raw(`","sequence_number":`)
	r.integer(int(r.count) - 1)
}

func (r *response) endEvent() {
	r.raw("}")
	r.end()
}

// start says that there is a response.
func (r *response) start() {
	if r.begun {
		return
	}
	r.begun = true
	r.event("response.created", "response", r.object("in_progress", nil))
	r.event("response.in_progress", "response", r.object("in_progress", nil))
}

// kindOf says in which item a delta belongs, and in which part of it.
func kindOf(d *delta) (kind, in string) {
	switch {
	case d.channel == wire.ToolCall && d.call.kind == wire.CallCustom:
		return customItem, ""
	case d.channel == wire.ToolCall:
		return functionItem, ""
	case d.channel == wire.Reasoning:
		return reasoningItem, reasoningPart
	case d.channel == wire.Refusal:
		return messageItem, refusalPart
	}
	return messageItem, textPart
}

func (r *response) delta(d *delta) {
	r.start()
	kind, in := kindOf(d)
	it := r.last()
	switch {
	case d.channel == wire.ToolCall:
		it = r.called(d, kind)
	case it == nil || it.over || it.kind != kind:
		r.close(it)
		it = r.add(&item{kind: kind})
		r.event("response.output_item.added", "output_index", it.index, "item", r.shown(it))
		if kind == reasoningItem {
			r.event("response.content_part.added", "item_id", it.id, "output_index", it.index, "content_index", 0, "part", partShown(&part{kind: in}))
		}
	}
	switch kind {
	case messageItem:
		r.toPart(it, in, d)
	case reasoningItem:
		it.text = append(it.text, d.text...)
		r.piece("response.reasoning_text.delta", it, 0, d)
	default:
		if !d.begins {
			it.text = append(it.text, d.text...)
			r.piece(inputEvent(it)+".delta", it, -1, d)
		}
	}
}

// called returns the item of a tool call, which may be a new one.
func (r *response) called(d *delta, kind string) *item {
	if !d.begins {
		for _, it := range r.items {
			if it.call != nil && it.call.index == d.call.index {
				return it
			}
		}
	}
	if last := r.last(); last != nil && last.call == nil { // calls may go on beside each other
		r.close(last)
	}
	it := r.add(&item{kind: kind, call: d.call, name: string(d.text)})
	r.event("response.output_item.added", "output_index", it.index, "item", r.shown(it))
	return it
}

// inputEvent is what events about the input of a tool are called.
func inputEvent(it *item) string {
	if it.kind == customItem {
		return "response.custom_tool_call_input"
	}
	return "response.function_call_arguments"
}

func (r *response) last() *item {
	if len(r.items) == 0 {
		return nil
	}
	return r.items[len(r.items)-1]
}

func (r *response) add(it *item) *item {
	it.index = len(r.items)
	it.id = fmt.Sprintf("%s%s%02x", prefixes[it.kind], r.suffix, it.index)
	r.items = append(r.items, it)
	return it
}

// toPart adds to the last part of a message, or to a new one.
func (r *response) toPart(it *item, kind string, d *delta) {
	at := len(it.parts) - 1
	if at < 0 || it.parts[at].kind != kind {
		r.closePart(it)
		at++
		it.parts = append(it.parts, &part{kind: kind})
		r.event("response.content_part.added", "item_id", it.id, "output_index", it.index, "content_index", at, "part", partShown(it.parts[at]))
	}
	p := it.parts[at]
	p.text = append(p.text, d.text...)
	if d.logp != nil {
		p.logps = append(p.logps, append([]byte(nil), d.logp...))
	}
	r.piece("response."+kind+".delta", it, at, d)
}

// piece writes a piece of text, which most events are; content is the part's index, or negative for none.
func (r *response) piece(name string, it *item, content int, d *delta) {
	if r.events == nil {
		return
	}
	r.beginEvent(name)
	r.raw(`,"item_id":"`)
	r.raw(it.id)
	r.raw(`","output_index":`)
	r.integer(it.index)
	if content >= 0 {
		r.raw(`,"content_index":`)
		r.integer(content)
	}
	r.raw(`,"delta":`)
	r.text(d.text)
	if name == "response.output_text.delta" {
		r.raw(`,"logprobs":`)
		r.data(logprobsOf([]json.RawMessage{d.logp}))
	}
	r.endEvent()
}

// logprobsOf returns log probabilities as responses have them: a list.
func logprobsOf(all []json.RawMessage) json.RawMessage {
	list := []json.RawMessage{}
	for _, one := range all {
		var chat struct {
			Content []json.RawMessage `json:"content"`
		}
		var plain []json.RawMessage
		switch {
		case len(one) == 0:
		case json.Unmarshal(one, &plain) == nil:
			list = append(list, plain...)
		case json.Unmarshal(one, &chat) == nil:
			list = append(list, chat.Content...)
		}
	}
	b, _ := json.Marshal(list) // it was parsed before
	return b
}

// closePart says that the last part of a message is complete.
func (r *response) closePart(it *item) {
	at := len(it.parts) - 1
	if at < 0 {
		return
	}
	p := it.parts[at]
	fields := []any{"item_id", it.id, "output_index", it.index, "content_index", at}
	if p.kind == refusalPart {
		r.event("response.refusal.done", append(fields, "refusal", string(p.text))...)
	} else {
		r.event("response.output_text.done", append(fields, "text", string(p.text), "logprobs", logprobsOf(p.logps))...)
	}
	r.event("response.content_part.done", append(fields, "part", partShown(p))...)
}

// close says that an item is complete.
func (r *response) close(it *item) {
	if it == nil || it.over {
		return
	}
	it.over = true
	switch it.kind {
	case messageItem:
		r.closePart(it)
	case reasoningItem:
		fields := []any{"item_id", it.id, "output_index", it.index, "content_index", 0}
		r.event("response.reasoning_text.done", append(fields, "text", string(it.text))...)
		r.event("response.content_part.done", append(fields, "part", partShown(&part{kind: reasoningPart, text: it.text}))...)
	case functionItem:
		r.event(inputEvent(it)+".done", "item_id", it.id, "output_index", it.index, "name", it.name, "arguments", string(it.text))
	case customItem:
		r.event(inputEvent(it)+".done", "item_id", it.id, "output_index", it.index, "input", string(it.text))
	}
	r.event("response.output_item.done", "output_index", it.index, "item", r.shown(it))
}

func (r *response) finish(done *wirepb.Done) {
	r.start()
	for _, it := range r.items {
		r.close(it)
	}
	status, details := "completed", any(nil)
	switch done.GetFinishReason() {
	case "length":
		status, details = "incomplete", map[string]string{"reason": "max_output_tokens"}
	case "content_filter":
		status, details = "incomplete", map[string]string{"reason": "content_filter"}
	}
	object := r.object(status, done)
	object["incomplete_details"] = details
	r.body, _ = json.Marshal(object) // made here, or parsed before
	r.event("response."+status, "response", json.RawMessage(r.body))
}

func (r *response) fail(err *wire.Error) {
	r.err = err
	r.start()
	r.event("response.failed", "response", r.failed(err))
}

// failed is a response that could not be completed.
func (r *response) failed(err *wire.Error) map[string]any {
	object := r.object("failed", nil)
	object["error"] = map[string]string{"code": "server_error", "message": interrupted(err).message}
	return object
}

// partShown is a part as it is shown.
func partShown(p *part) map[string]any {
	switch p.kind {
	case refusalPart:
		return map[string]any{"type": p.kind, "refusal": string(p.text)}
	case reasoningPart:
		return map[string]any{"type": p.kind, "text": string(p.text)}
	}
	return map[string]any{"type": p.kind, "text": string(p.text), "annotations": []any{}, "logprobs": logprobsOf(p.logps)}
}

// shown is an item as it is shown.
func (r *response) shown(it *item) map[string]any {
	status := "in_progress"
	if it.over {
		status = "completed"
	}
	shown := map[string]any{"id": it.id, "type": it.kind, "status": status}
	switch it.kind {
	case messageItem:
		parts := []any{}
		for _, p := range it.parts {
			parts = append(parts, partShown(p))
		}
		shown["role"], shown["content"] = "assistant", parts
	case reasoningItem:
		shown["summary"], shown["content"] = []any{}, []any{}
		if len(it.text) > 0 {
			shown["content"] = []any{partShown(&part{kind: reasoningPart, text: it.text})}
		}
	case functionItem:
		shown["call_id"], shown["name"], shown["arguments"] = r.callID(0, it.call.index), it.name, string(it.text)
	case customItem:
		shown["call_id"], shown["name"], shown["input"] = r.callID(0, it.call.index), it.name, string(it.text)
	}
	return shown
}

// output is what there is of the response so far, as it is shown.
func (r *response) output() []any {
	all := []any{}
	for _, it := range r.items {
		all = append(all, r.shown(it))
	}
	return all
}

// echoed are the fields of a request that its response repeats, with what they are where nothing was said.
var echoed = map[string]string{
	"instructions": "null", "max_output_tokens": "null", "max_tool_calls": "null", "metadata": "{}", "parallel_tool_calls": "true",
	"previous_response_id": "null", "reasoning": `{"effort":null,"summary":null}`, "service_tier": `"default"`, "store": "true",
	"temperature": "1", "text": `{"format":{"type":"text"}}`, "tool_choice": `"auto"`, "tools": "[]", "top_p": "1",
	"truncation": `"disabled"`, "user": "null", "background": "false",
}

// object is the response as it is shown, in a status. It has its output, and what it took, once that is known.
func (r *response) object(status string, done *wirepb.Done) map[string]any {
	object := map[string]any{
		"id": r.id, "object": "response", "created_at": r.created.Unix(), "status": status, "model": r.model(),
		"output": r.output(), "error": nil, "incomplete_details": nil, "usage": nil,
	}
	for name, otherwise := range echoed {
		object[name] = json.RawMessage(otherwise)
		if raw, ok := r.ask.fields[name]; ok {
			object[name] = raw
		}
	}
	if done != nil {
		u := r.usageOf(done)
		object["usage"] = map[string]any{
			"input_tokens": u.GetPromptTokens(), "output_tokens": u.GetCompletionTokens(), "total_tokens": u.GetPromptTokens() + u.GetCompletionTokens(),
			"input_tokens_details":  map[string]any{"cached_tokens": u.GetCachedTokens()},
			"output_tokens_details": map[string]any{"reasoning_tokens": u.GetReasoningTokens()},
		}
		if r.told {
			object["connswap"] = json.RawMessage(r.outcome(done))
		}
	}
	return object
}
