package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// chatOf translates a request of the API responses into one of chats, which is what inference servers are asked. Fields that both have
// go over as they are, those that neither knows too. The error says what there is no translation for.
func chatOf(body []byte) ([]byte, error) {
	t := &translation{to: make(map[string]any)}
	if err := json.Unmarshal(body, &t.from); err != nil {
		return nil, engine.Rejected("the request cannot be read: "+wire.Text(err.Error()), 0, nil)
	}
	for name, raw := range t.from {
		if _, read := translated[name]; !read {
			t.to[name] = raw
		}
	}
	for _, step := range []func() error{t.instructions, t.input, t.tools, t.toolChoice, t.text, t.renamed} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	t.to["messages"] = t.messages
	chat, err := json.Marshal(t.to)
	if err != nil {
		return nil, engine.Rejected("the request cannot be translated: "+wire.Text(err.Error()), 0, nil)
	}
	return chat, nil
}

// translated are the fields of responses that are read, or that mean nothing to an inference server; with what they are called in
// chats where nothing but the name is another.
var translated = map[string]string{
	"input": "", "instructions": "", "tools": "", "tool_choice": "", "text": "", "reasoning": "", "include": "", "store": "", "background": "",
	"previous_response_id": "", "conversation": "", "prompt": "", "truncation": "", "max_tool_calls": "", "stream_options": "", "context_management": "",
	"max_output_tokens": "max_completion_tokens",
}

// translation is a request of responses on its way to one of chats.
type translation struct {
	from     map[string]json.RawMessage
	to       map[string]any
	messages []map[string]any
}

// untranslatable is the error for what chats do not have.
func untranslatable(param, format string, args ...any) error {
	message := fmt.Sprintf(param+": "+format, args...)
	document, _ := json.Marshal(map[string]any{"error": map[string]any{ // nothing in it can fail
		"message": message, "type": "invalid_request_error", "param": param, "code": "unsupported_value",
	}})
	return engine.Rejected(message, 400, document)
}

// read reads a field, and reports whether there is one.
func (t *translation) read(name string, to any) (bool, error) {
	raw := t.from[name]
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return false, nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return false, untranslatable(name, "%s", wire.Text(err.Error()))
	}
	return true, nil
}

func (t *translation) instructions() error {
	var text string
	ok, err := t.read("instructions", &text)
	if ok && text != "" {
		t.messages = append(t.messages, map[string]any{"role": "system", "content": text})
	}
	return err
}

// item is one of a response's input.
type item struct {
	Type      string          `json:"type"` // empty for a message
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Input     string          `json:"input"`
	Output    json.RawMessage `json:"output"`
}

func (t *translation) input() error {
	var text string
	if json.Unmarshal(t.from["input"], &text) == nil {
		t.messages = append(t.messages, map[string]any{"role": "user", "content": text})
		return nil
	}
	var items []item
	if _, err := t.read("input", &items); err != nil {
		return err
	}
	for i, it := range items {
		if err := t.item(i, it); err != nil {
			return err
		}
	}
	return nil
}

func (t *translation) item(i int, it item) error {
	switch it.Type {
	case "", "message":
		return t.message(i, it)
	case "function_call":
		t.call(map[string]any{"id": it.CallID, "type": "function", "function": map[string]any{"name": it.Name, "arguments": it.Arguments}})
	case "custom_tool_call":
		t.call(map[string]any{"id": it.CallID, "type": "custom", "custom": map[string]any{"name": it.Name, "input": it.Input}})
	case "function_call_output", "custom_tool_call_output":
		content, err := contentOf(i, it.Output)
		if err != nil {
			return err
		}
		t.messages = append(t.messages, map[string]any{"role": "tool", "tool_call_id": it.CallID, "content": content})
	case "reasoning": // a model reads none of earlier turns
	default:
		return untranslatable("input", "an item of type %.40q (item %d) is not supported here", it.Type, i)
	}
	return nil
}

// call adds a tool call to the message of the assistant that is the last one, or to one of its own.
func (t *translation) call(call map[string]any) {
	if n := len(t.messages); n > 0 && t.messages[n-1]["role"] == "assistant" {
		calls, _ := t.messages[n-1]["tool_calls"].([]any)
		t.messages[n-1]["tool_calls"] = append(calls, call)
		return
	}
	t.messages = append(t.messages, map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{call}})
}

func (t *translation) message(i int, it item) error {
	if it.Role == "" {
		return untranslatable("input", "item %d is a message without a role", i)
	}
	content, err := contentOf(i, it.Content)
	if err != nil {
		return err
	}
	if it.Role == "developer" { // which the templates of open models do not know
		it.Role = "system"
	}
	t.messages = append(t.messages, map[string]any{"role": it.Role, "content": content})
	return nil
}

// part is one of a message's content.
type part struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Refusal  string          `json:"refusal"`
	ImageURL json.RawMessage `json:"image_url"`
	Detail   string          `json:"detail"`
	Audio    json.RawMessage `json:"input_audio"`
}

// contentOf translates the content of a message: a string, or a list of parts. If all of these are text it becomes a string, which every
// server takes.
func contentOf(i int, content json.RawMessage) (any, error) {
	var text string
	if len(content) == 0 || json.Unmarshal(content, &text) == nil {
		return text, nil
	}
	var parts []part
	if err := json.Unmarshal(content, &parts); err != nil {
		return nil, untranslatable("input", "the content of item %d has to be a string, or a list of parts", i)
	}
	list := make([]any, 0, len(parts))
	plain := true
	for _, p := range parts {
		chat, err := p.chat(i)
		if err != nil {
			return nil, err
		}
		list = append(list, chat)
		text += p.Text + p.Refusal
		plain = plain && p.ImageURL == nil && p.Audio == nil
	}
	if plain {
		return text, nil
	}
	return list, nil
}

// chat translates one part.
func (p *part) chat(i int) (any, error) {
	switch p.Type {
	case "input_text", "output_text", "text", "refusal":
		return map[string]any{"type": "text", "text": p.Text + p.Refusal}, nil
	case "input_image", "image_url":
		image := map[string]any{}
		var url string
		if json.Unmarshal(p.ImageURL, &url) == nil && url != "" {
			image["url"] = url
		} else if json.Unmarshal(p.ImageURL, &image) != nil || image["url"] == nil {
			return nil, untranslatable("input", "an image without image_url (item %d); files are not kept here", i)
		}
		if p.Detail != "" {
			image["detail"] = p.Detail
		}
		return map[string]any{"type": "image_url", "image_url": image}, nil
	case "input_audio":
		return map[string]any{"type": "input_audio", "input_audio": p.Audio}, nil
	}
	return nil, untranslatable("input", "a part of type %.40q (item %d) is not supported here", p.Type, i)
}

// tools puts what is said of a function in an object of its own, as chats have it.
func (t *translation) tools() error {
	var tools []map[string]json.RawMessage
	if ok, err := t.read("tools", &tools); !ok {
		return err
	}
	list := make([]any, 0, len(tools))
	for _, tool := range tools {
		var kind string
		_ = json.Unmarshal(tool["type"], &kind) // then it is empty
		if kind != wire.CallFunction && kind != wire.CallCustom {
			return untranslatable("tools", "a tool of type %.40q is not supported here", kind)
		}
		if inner, nested := tool[kind]; nested {
			list = append(list, map[string]any{"type": kind, kind: inner})
			continue
		}
		delete(tool, "type")
		list = append(list, map[string]any{"type": kind, kind: tool})
	}
	if len(list) > 0 {
		t.to["tools"] = list
	}
	return nil
}

func (t *translation) toolChoice() error {
	raw := t.from["tool_choice"]
	var word string
	if len(raw) == 0 || json.Unmarshal(raw, &word) == nil {
		if word != "" {
			t.to["tool_choice"] = word
		}
		return nil
	}
	var choice struct{ Type, Name string }
	if _, err := t.read("tool_choice", &choice); err != nil {
		return err
	}
	if choice.Type != wire.CallFunction && choice.Type != wire.CallCustom || choice.Name == "" {
		return untranslatable("tool_choice", "a choice of type %.40q is not supported here", choice.Type)
	}
	t.to["tool_choice"] = map[string]any{"type": choice.Type, choice.Type: map[string]string{"name": choice.Name}}
	return nil
}

// text translates what form the text is to have.
func (t *translation) text() error {
	var text struct {
		Format    map[string]json.RawMessage `json:"format"`
		Verbosity json.RawMessage            `json:"verbosity"`
	}
	if ok, err := t.read("text", &text); !ok {
		return err
	}
	if len(text.Verbosity) > 0 && !bytes.Equal(text.Verbosity, []byte("null")) {
		t.to["verbosity"] = text.Verbosity
	}
	if text.Format == nil {
		return nil
	}
	var kind string
	_ = json.Unmarshal(text.Format["type"], &kind) // then it is empty
	switch kind {
	case "", "text":
	case "json_object":
		t.to["response_format"] = map[string]string{"type": kind}
	case "json_schema":
		delete(text.Format, "type")
		t.to["response_format"] = map[string]any{"type": kind, kind: text.Format}
	default:
		return untranslatable("text", "a format of type %.40q is not supported here", kind)
	}
	return nil
}

// renamed takes over what is called otherwise in chats.
func (t *translation) renamed() error {
	for from, to := range translated {
		if raw := t.from[from]; to != "" && len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
			t.to[to] = raw
		}
	}
	if n, ok := number(t.from["top_logprobs"]); ok && n > 0 {
		t.to["logprobs"] = true
	}
	var include []string
	if _, err := t.read("include", &include); err != nil {
		return err
	}
	for _, what := range include {
		if what == "message.output_text.logprobs" {
			t.to["logprobs"] = true
		}
	}
	var reasoning struct {
		Effort json.RawMessage `json:"effort"`
	}
	if _, err := t.read("reasoning", &reasoning); err != nil {
		return err
	}
	if len(reasoning.Effort) > 0 && !bytes.Equal(reasoning.Effort, []byte("null")) {
		t.to["reasoning_effort"] = reasoning.Effort
	}
	return nil
}
