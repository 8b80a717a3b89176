package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/connswap/connswap/shared/wire"
)

// body is a JSON object whose named fields are patched. All others go on as they came, to the byte. Of fields with the same name the
// last one counts, as for most servers, and is the only one that goes on: what is patched cannot be said otherwise a second time.
type body struct {
	names []string
	raw   map[string]string
}

func newBody() *body { return &body{raw: map[string]string{}} }

func parseBody(doc []byte) (*body, error) {
	if !json.Valid(doc) { // which bounds how deep it is; gjson does not
		return nil, &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "the request is no JSON"}
	}
	root := gjson.ParseBytes(doc)
	if !root.IsObject() {
		return nil, &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "the request is no JSON object"}
	}
	b := newBody()
	root.ForEach(func(name, value gjson.Result) bool {
		b.setRaw(name.Str, value.Raw)
		return true
	})
	return b, nil
}

// get returns a field; Exists is false where there is none, or null.
func (b *body) get(name string) gjson.Result {
	if value := gjson.Parse(b.raw[name]); value.Type != gjson.Null {
		return value
	}
	return gjson.Result{}
}

func (b *body) setRaw(name, raw string) {
	if _, ok := b.raw[name]; !ok {
		b.names = append(b.names, name)
	}
	b.raw[name] = raw
}

func (b *body) setInt(name string, n int) { b.setRaw(name, strconv.Itoa(n)) }

func (b *body) setBool(name string, is bool) { b.setRaw(name, strconv.FormatBool(is)) }

func (b *body) setString(name, value string) { b.setRaw(name, quote(value)) }

func (b *body) setIDs(name string, ids []uint32) { b.setRaw(name, rawIDs(ids)) }

func (b *body) remove(names ...string) {
	for _, name := range names {
		delete(b.raw, name)
	}
	b.names = slices.DeleteFunc(b.names, func(name string) bool { _, ok := b.raw[name]; return !ok })
}

// rename moves a field to another name, unless there is one already.
func (b *body) rename(from, to string) {
	if value := b.get(from); value.Exists() && !b.get(to).Exists() {
		b.setRaw(to, value.Raw)
	}
	b.remove(from)
}

// bytes returns the object.
func (b *body) bytes() []byte {
	size := 2
	for name, raw := range b.raw {
		size += len(name) + len(raw) + 8
	}
	out := append(make([]byte, 0, size), '{')
	for _, name := range b.names {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(gjson.AppendJSONString(out, name), ':')
		out = append(out, b.raw[name]...)
	}
	return append(out, '}')
}

func quote(text string) string { return string(gjson.AppendJSONString(nil, text)) }

func rawIDs(ids []uint32) string {
	out := append(make([]byte, 0, 8*len(ids)+2), '[')
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendUint(out, uint64(id), 10)
	}
	return string(append(out, ']'))
}

// seedOf returns a seed that every kind of server takes: from 0 to 2³¹-1. llama.cpp takes 32 bits, of which all set stand for none.
func seedOf(seed uint64) int { return int((seed ^ seed>>32) & 0x7fffffff) }

// callBody returns the body of a call in the form of its API, with model, stream, seed and limits patched.
func callBody(call Call) (*body, error) {
	b := newBody()
	if call.Body != nil {
		parsed, err := parseBody(call.Body)
		if err != nil {
			return nil, err
		}
		b = parsed
	} else {
		b.setString("prompt", call.Prompt)
		if len(call.Stop) > 0 {
			b.setRaw("stop", rawStrings(call.Stop))
		}
		if call.Choices > 1 {
			b.setInt("n", call.Choices)
		}
	}
	b.setString("model", call.Model)
	b.setBool("stream", true)
	options := b.get("stream_options").Raw
	if !gjson.Parse(options).IsObject() {
		options = "{}"
	}
	options, err := sjson.Set(options, "include_usage", true)
	if err != nil {
		return nil, &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "stream_options cannot be read", Err: err}
	}
	b.setRaw("stream_options", options)
	if !b.get("seed").Exists() {
		b.setInt("seed", seedOf(call.Seed))
	}
	b.limit(call)
	return b, nil
}

// limit patches how many tokens there may be, and have to be.
func (b *body) limit(call Call) {
	most := max(1, call.MaxTokens) // Ollama generates without an end at 0
	done := call.Done
	chat := isChat(call)
	had := b.get("max_tokens")
	if other := b.get("max_completion_tokens"); chat && other.Exists() {
		had = other
		b.setInt("max_completion_tokens", most)
		if b.get("max_tokens").Exists() {
			b.setInt("max_tokens", most)
		}
	} else {
		b.setInt("max_tokens", most)
	}
	if done == 0 && (call.IDs != nil || call.Text != nil) && had.Exists() {
		done = max(0, int(had.Int())-most)
	}
	if least := b.get("min_tokens"); least.Exists() {
		b.setInt("min_tokens", min(max(0, int(least.Int())-done), most))
	}
}

func isChat(call Call) bool { return call.Body != nil && call.API == wire.APIChat }

func rawStrings(list []string) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = quote(s)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// onlyChat are the fields of a chat that completions do not have, or have with another meaning.
var onlyChat = []string{
	"messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format",
	"chat_template", "chat_template_kwargs", "chat_template_content_format", "add_generation_prompt", "continue_final_message",
	"add_special_tokens", "documents", "echo", "logprobs", "top_logprobs", "max_completion_tokens", "reasoning_effort",
	"include_reasoning", "separate_reasoning", "stream_reasoning", "reasoning_format", "reasoning", "thinking", "thinking_budget_tokens",
	"parse_tool_calls", "modalities", "audio", "prediction", "verbosity", "web_search_options", "mm_processor_kwargs", "input_ids",
}

// completion returns the body of a call as one of completions whose prompt are ids, whatever its API is.
func completion(call Call) (*body, error) {
	b, err := callBody(call)
	if err != nil {
		return nil, err
	}
	if isChat(call) {
		if b.get("max_completion_tokens").Exists() {
			b.setRaw("max_tokens", b.raw["max_completion_tokens"])
		}
		b.remove(onlyChat...)
	} else {
		b.remove("echo") // of what was there before
	}
	b.setIDs("prompt", call.IDs)
	return b, nil
}

// continuing is how a kind of server goes on with a text in a chat.
type continuing struct {
	flags    bool // it has to be told that the last message is not over
	prefills bool // it takes any last message of the assistant so
}

// goOn patches a body so that the answer goes on behind call.Text.
func (b *body) goOn(call Call, how continuing) error {
	if !utf8.Valid(call.Text) {
		return unsupported("a text that ends within a character cannot be sent as text", errors.ErrUnsupported)
	}
	if !isChat(call) {
		prompt := b.get("prompt")
		if list := prompt.Array(); prompt.IsArray() && len(list) == 1 {
			prompt = list[0]
		}
		if prompt.Type != gjson.String {
			return unsupported("a prompt that is no text cannot go on as text", errors.ErrUnsupported)
		}
		b.setString("prompt", prompt.Str+string(call.Text))
		b.remove("echo")
		return nil
	}
	begun := how.prefills || b.get("continue_final_message").Bool()
	if err := b.appendAnswer(string(call.Text), begun); err != nil {
		return err
	}
	if how.flags {
		b.setBool("continue_final_message", true)
		b.setBool("add_generation_prompt", false)
	}
	return nil
}

// appendAnswer appends a text to the messages: as one of its own, or where the answer had begun in the request to the last one, if that
// is of the assistant.
func (b *body) appendAnswer(text string, begun bool) error {
	messages := b.get("messages")
	list := messages.Array()
	if !messages.IsArray() || len(list) == 0 {
		return &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "there are no messages"}
	}
	path, message := "-1", `{"role":"assistant","content":`+quote(text)+`}`
	if last := list[len(list)-1]; begun && last.Get("role").Str == "assistant" {
		content := last.Get("content")
		if content.Type != gjson.String || last.Get("tool_calls").Exists() {
			return unsupported("a message of the assistant that is not only text cannot go on", errors.ErrUnsupported)
		}
		path, message = strconv.Itoa(len(list)-1)+".content", quote(content.Str+text)
	}
	raw, err := sjson.SetRaw(messages.Raw, path, message)
	if err != nil {
		return &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "the messages cannot be read", Err: err}
	}
	b.setRaw("messages", raw)
	return nil
}
