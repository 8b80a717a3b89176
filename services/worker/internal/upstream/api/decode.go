package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// decoder makes deltas of a stream's events.
type decoder interface {
	// event takes the data of an event, and appends what it says to deltas. progress is false for one that says nothing of the text.
	event(data []byte, deltas []Delta) (more []Delta, progress bool, err error)
	// outcome returns how the text ended; false where it has not.
	outcome() (engine.Finish, bool)
	// learned returns what the stream has said so far beside the text.
	learned() learned
}

// learned is what a stream says beside the text.
type learned struct {
	prompt      int    // tokens of the prompt; 0 if it is not known yet
	fingerprint string // of what makes the text
	done        bool   // the server has said that this was all
	counted     bool   // how many tokens there are is known: by the usage, or by the ids of all
}

// chunk is an event of OpenAI's streams, of chat.completions and completions alike.
type chunk struct {
	Object            string          `json:"object"`
	Error             json.RawMessage `json:"error"`
	Choices           []chunkChoice   `json:"choices"`
	Usage             *usage          `json:"usage"`
	SystemFingerprint string          `json:"system_fingerprint"`
	PromptTokenIDs    []uint32        `json:"prompt_token_ids"`
}

type chunkChoice struct {
	Index          int             `json:"index"`
	Delta          chunkDelta      `json:"delta"`
	Text           string          `json:"text"`
	Logprobs       json.RawMessage `json:"logprobs"`
	FinishReason   string          `json:"finish_reason"`
	TokenIDs       []uint32        `json:"token_ids"`
	PromptTokenIDs []uint32        `json:"prompt_token_ids"`
}

type chunkDelta struct {
	Content          string         `json:"content"`
	Reasoning        string         `json:"reasoning"`
	ReasoningContent string         `json:"reasoning_content"`
	Refusal          string         `json:"refusal"`
	ToolCalls        []chunkCall    `json:"tool_calls"`
	FunctionCall     *chunkFunction `json:"function_call"`
}

type chunkCall struct {
	Index    *int          `json:"index"`
	ID       string        `json:"id"`
	Type     string        `json:"type"`
	Function chunkFunction `json:"function"`
	Custom   struct {
		Name  string `json:"name"`
		Input string `json:"input"`
	} `json:"custom"`
}

type chunkFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	PromptDetails    struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
	ReasoningTokens int `json:"reasoning_tokens"` // where SGLang has them
}

// openAIDecoder reads the streams of OpenAI's API.
type openAIDecoder struct {
	choices  []choiceState
	usage    engine.Usage
	hasUsage bool
	tokens   int  // seen so far, where there is no usage
	untold   bool // not all of them have ids
	said     learned
}

type choiceState struct {
	reason string // to finish; empty before that
	calls  []callState
}

// callState is a tool call that has begun.
type callState struct {
	call      *wire.Call
	server    int    // the server's index
	id        string // the server's
	name      string
	arguments bool // some have come
}

func newOpenAIDecoder(choices int) *openAIDecoder {
	return &openAIDecoder{choices: make([]choiceState, min(max(1, choices), wire.MaxChoice+1))}
}

func (d *openAIDecoder) learned() learned {
	said := d.said
	said.counted = d.hasUsage || d.tokens > 0 && !d.untold && said.prompt > 0
	return said
}

var endOfStream = []byte("[DONE]")

func (d *openAIDecoder) event(data []byte, deltas []Delta) ([]Delta, bool, error) {
	if bytes.Equal(bytes.TrimSpace(data), endOfStream) {
		d.said.done = true
		return deltas, false, nil
	}
	c := chunk{}
	if err := json.Unmarshal(data, &c); err != nil {
		return deltas, false, &Error{Fault: Broken, Message: "an event of the stream cannot be read", Err: err}
	}
	if c.Object == "error" || len(c.Error) > 0 && !bytes.Equal(c.Error, null) {
		if err := errorIn(data); err != nil {
			return deltas, false, err
		}
	}
	if c.SystemFingerprint != "" {
		d.said.fingerprint = c.SystemFingerprint
	}
	if len(c.PromptTokenIDs) > 0 {
		d.said.prompt = len(c.PromptTokenIDs)
	}
	for i := range c.Choices {
		more, err := d.choice(&c.Choices[i], deltas)
		if err != nil {
			return deltas, false, err
		}
		deltas = more
	}
	if c.Usage != nil {
		d.count(c.Usage)
	}
	return deltas, len(c.Choices) > 0 || c.Usage != nil, nil
}

var null = []byte("null")

func (d *openAIDecoder) count(u *usage) {
	d.hasUsage = true
	d.usage = engine.Usage{
		Prompt:     u.PromptTokens,
		Completion: u.CompletionTokens,
		Cached:     u.PromptDetails.CachedTokens,
		Reasoning:  max(u.CompletionDetails.ReasoningTokens, u.ReasoningTokens),
	}
	if u.PromptTokens > 0 {
		d.said.prompt = u.PromptTokens
	}
}

func (d *openAIDecoder) choice(c *chunkChoice, deltas []Delta) ([]Delta, error) {
	if c.Index < 0 || c.Index >= len(d.choices) {
		return deltas, broken(fmt.Sprintf("a chunk of choice %d of %d", c.Index, len(d.choices)))
	}
	if len(c.PromptTokenIDs) > 0 {
		d.said.prompt = len(c.PromptTokenIDs)
	}
	state := &d.choices[c.Index]
	from := len(deltas)
	deltas, err := d.pieces(c, state, deltas)
	if err != nil {
		return deltas, err
	}
	if bytes.Equal(c.Logprobs, null) {
		c.Logprobs = nil
	}
	if len(deltas) == from && (len(c.TokenIDs) > 0 || len(c.Logprobs) > 0) {
		deltas = append(deltas, Delta{Choice: c.Index}) // tokens without a text of their own, such as a part of a character
	}
	if len(deltas) > from {
		// What comes behind the end is not what the end was said of. An empty chunk there, or the end once more, changes nothing.
		if state.reason != "" {
			return deltas, broken("text of a choice that has finished")
		}
		first := &deltas[from]
		first.IDs, first.Logprobs = c.TokenIDs, c.Logprobs
		if first.Tokens = 1; len(c.TokenIDs) > 0 {
			first.Tokens = len(c.TokenIDs)
		}
		d.untold = d.untold || len(c.TokenIDs) == 0
		d.tokens += first.Tokens
	}
	return deltas, state.finish(c.FinishReason)
}

func (s *choiceState) finish(reason string) error {
	switch {
	case reason == "":
	case reason == "abort", reason == "error":
		return &Error{Fault: Failed, Message: "the server has given the text up: " + reason}
	case s.reason != "" && s.reason != reason:
		return broken("two reasons to finish: " + strconv.Quote(s.reason) + " and " + strconv.Quote(reason))
	default:
		s.reason = reason
	}
	return nil
}

// pieces appends a delta for each channel that a chunk has text of.
func (d *openAIDecoder) pieces(c *chunkChoice, state *choiceState, deltas []Delta) ([]Delta, error) {
	add := func(channel engine.Channel, text string, call *wire.Call) {
		if text != "" {
			deltas = append(deltas, Delta{Choice: c.Index, Channel: channel, Text: []byte(text), Call: call})
		}
	}
	reasoning := c.Delta.Reasoning
	if reasoning == "" { // a server that says both says the same
		reasoning = c.Delta.ReasoningContent
	}
	add(engine.Reasoning, reasoning, nil)
	add(engine.Content, c.Delta.Content, nil)
	add(engine.Content, c.Text, nil)
	add(engine.Refusal, c.Delta.Refusal, nil)
	if f := c.Delta.FunctionCall; f != nil {
		c.Delta.ToolCalls = append(c.Delta.ToolCalls, chunkCall{Index: new(int), Function: *f})
	}
	for i := range c.Delta.ToolCalls {
		t := &c.Delta.ToolCalls[i]
		name, arguments := t.Function.Name, t.Function.Arguments
		if t.Type == wire.CallCustom {
			name, arguments = t.Custom.Name, t.Custom.Input
		}
		if t.Type == "" && name == "" && arguments == "" { // later pieces need not say their type
			arguments = t.Custom.Input
		}
		call, begins, err := state.call(t, name)
		if err != nil {
			return deltas, err
		}
		if begins {
			add(engine.ToolCall, name, call.call)
		}
		if arguments != "" {
			call.arguments = true
			add(engine.ToolCall, arguments, call.call)
		}
	}
	return deltas, nil
}

// call returns the tool call that a piece belongs to, and whether it begins with it. Some servers number each call 0, and some repeat
// the name in each piece: another id, or a name behind arguments, is another call.
func (s *choiceState) call(t *chunkCall, name string) (call *callState, begins bool, err error) {
	for i := len(s.calls) - 1; i >= 0 && call == nil; i-- {
		if t.Index == nil || s.calls[i].server == *t.Index {
			call = &s.calls[i]
		}
	}
	if name == "" {
		if call == nil {
			return nil, false, broken("a tool call without a name")
		}
		return call, false, nil
	}
	if call != nil {
		same := t.ID == "" || t.ID == call.id
		if same && call.name == name && (t.ID != "" || !call.arguments) {
			return call, false, nil
		}
		if same && call.name != name && !call.arguments && t.ID != "" {
			return nil, false, broken("a tool call whose name changes")
		}
	}
	n := len(s.calls)
	begun := callState{call: &wire.Call{Index: n, Type: t.Type}, server: n, id: t.ID, name: name}
	if t.Index != nil {
		begun.server = *t.Index
	}
	if begun.call.Type == "" {
		begun.call.Type = wire.CallFunction
	}
	s.calls = append(s.calls, begun)
	return &s.calls[n], true, nil
}

func (d *openAIDecoder) outcome() (engine.Finish, bool) {
	finish := engine.Finish{Usage: d.usage}
	for i := range d.choices {
		if d.choices[i].reason == "" {
			return finish, false
		}
		if len(d.choices) > 1 {
			finish.Reasons = append(finish.Reasons, d.choices[i].reason)
		}
	}
	finish.Reason = d.choices[0].reason
	if !d.hasUsage {
		finish.Usage = engine.Usage{Prompt: d.said.prompt, Completion: d.tokens}
	}
	return finish, true
}
