package upstream

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// shape is what a request asks for, as far as it decides how its answer can be gone on with.
type shape struct {
	api     string // of the call: wire.APIChat or wire.APICompletions
	body    []byte // of the call; nil for a prompt alone
	greedy  bool   // nothing is drawn
	limited bool   // the request itself says how long its answer may be
	least   int    // tokens that the answer has at least

	// Why the answer cannot be gone on with behind its ids, or its text; empty if it can. It is a field of the request, mostly.
	notIDs  string
	notText string
}

// newShape reads a request. The error is for its caller.
func newShape(req engine.Request) (*shape, error) {
	s := &shape{api: req.API, body: req.Body}
	switch req.API {
	case wire.APIChat, wire.APICompletions:
	case wire.APIResponses:
		body, err := chatOf(req.Body)
		if err != nil {
			return nil, err
		}
		s.api, s.body = wire.APIChat, body
	case "":
		s.api, s.body = wire.APICompletions, nil
	default:
		return nil, engine.Rejected("this model does not answer requests of the API "+wire.Text(req.API), 0, nil)
	}
	if req.Choices > 1 {
		s.notIDs, s.notText = "n", "n"
	}
	if s.body == nil {
		return s, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(s.body, &fields); err != nil {
		return nil, engine.Rejected("the request cannot be read: "+wire.Text(err.Error()), 0, nil)
	}
	s.read(fields)
	return s, nil
}

func (s *shape) read(fields map[string]json.RawMessage) {
	temperature, ok := number(fields["temperature"])
	s.greedy = ok && temperature == 0
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if _, ok := number(fields[name]); ok {
			s.limited = true
		}
	}
	if n, ok := number(fields["min_tokens"]); ok {
		s.least = max(0, int(n))
	}
	for _, f := range features {
		raw := fields[f.name]
		if neutral(raw, f.neutral) {
			continue
		}
		if s.notIDs == "" {
			s.notIDs = f.name
		}
		if s.notText == "" && f.text {
			s.notText = f.name
		}
	}
	if s.notIDs == "" && !plain(fields["messages"]) {
		s.notIDs = "messages" // a prompt of ids has no images
	}
}

// feature is a field of a request for which its answer depends on more than the ids before it: on where the answer begins, on a state
// that the server starts anew, or on how it is parsed.
type feature struct {
	name    string
	neutral []string // values that ask for nothing, beside null, false, an empty string and an empty list
	text    bool     // the answer is no plain text either
}

// format is a response_format that asks for nothing.
const format = `{"type":"text"}`

var features = []feature{
	{name: "tools", text: true},
	{name: "functions", text: true},
	{name: "response_format", neutral: []string{format}, text: true},
	{name: "structured_outputs", text: true},
	{name: "guided_json", text: true},
	{name: "guided_regex", text: true},
	{name: "guided_choice", text: true},
	{name: "guided_grammar", text: true},
	{name: "structural_tag", text: true},
	{name: "json_schema", text: true},
	{name: "grammar", text: true},
	{name: "regex", text: true},
	{name: "ebnf", text: true},
	{name: "format", text: true}, // of Ollama
	{name: "logprobs", text: true},
	{name: "top_logprobs", neutral: []string{"0"}, text: true},
	{name: "n_probs", neutral: []string{"0"}, text: true},
	{name: "prompt_logprobs", text: true},
	{name: "n", neutral: []string{"1"}, text: true},
	{name: "best_of", neutral: []string{"1"}, text: true},
	{name: "use_beam_search", text: true},
	{name: "echo", text: true},
	{name: "suffix", text: true},
	{name: "audio", text: true},
	{name: "modalities", neutral: []string{`["text"]`}, text: true},
	{name: "prompt_embeds", text: true},
	{name: "continue_final_message", text: true},
	{name: "thinking_token_budget", text: true},
	{name: "thinking_budget_tokens", neutral: []string{"-1"}, text: true},
	{name: "frequency_penalty", neutral: []string{"0"}},
	{name: "presence_penalty", neutral: []string{"0"}},
	{name: "repetition_penalty", neutral: []string{"1"}}, // whether it counts the prompt too depends on the server
	{name: "repeat_penalty", neutral: []string{"1"}},
	{name: "dry_multiplier", neutral: []string{"0"}},
	{name: "mirostat", neutral: []string{"0"}},
	{name: "no_repeat_ngram_size", neutral: []string{"0"}},
	{name: "bad_words"},
	{name: "logits_processors"},
	{name: "custom_logit_processor"},
	{name: "custom_params"},
	{name: "vllm_xargs"},
	{name: "kv_transfer_params"},
	{name: "truncate_prompt_tokens"},
	{name: "session_params"},
}

// neutral reports whether a field asks for nothing.
func neutral(raw json.RawMessage, others []string) bool {
	if len(raw) == 0 {
		return true
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return false
	}
	value := b.String()
	if slices.Contains([]string{"null", "false", `""`, "[]"}, value) || slices.Contains(others, value) {
		return true
	}
	n, ok := number(raw)
	return ok && slices.ContainsFunc(others, func(other string) bool {
		same, err := strconv.ParseFloat(other, 64)
		return err == nil && same == n
	})
}

func number(raw json.RawMessage) (n float64, ok bool) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return 0, false
	}
	return n, json.Unmarshal(raw, &n) == nil
}

// plain reports whether messages have nothing but text.
func plain(messages json.RawMessage) bool {
	var list []struct {
		Content json.RawMessage `json:"content"`
	}
	if len(messages) == 0 {
		return true
	}
	if json.Unmarshal(messages, &list) != nil {
		return false
	}
	for _, m := range list {
		var parts []struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(m.Content, &parts) != nil {
			continue // a string
		}
		for _, p := range parts {
			if p.Type != "text" && p.Type != "refusal" {
				return false
			}
		}
	}
	return true
}

// without returns a body without some fields; itself where it has none of them.
func without(body []byte, names ...string) []byte {
	var fields map[string]json.RawMessage
	if len(body) == 0 || json.Unmarshal(body, &fields) != nil {
		return body
	}
	n := len(fields)
	for _, name := range names {
		delete(fields, name)
	}
	if len(fields) == n {
		return body
	}
	less, err := json.Marshal(fields)
	if err != nil {
		return body
	}
	return less
}
