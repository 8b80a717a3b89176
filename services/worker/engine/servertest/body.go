package servertest

import (
	"encoding/json"
	"slices"
)

// body is a request for text, in all the forms of all kinds.
type body struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"`
	Prompt   json.RawMessage `json:"prompt"`
	Text     string          `json:"text"`      // of SGLang's own form
	InputIDs []int           `json:"input_ids"` // of SGLang, in chats as well: the prompt instead of the messages

	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage         bool `json:"include_usage"`
		ContinuousUsageStats bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`

	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Predict             *int            `json:"n_predict"` // of llama.cpp
	MinTokens           int             `json:"min_tokens"`
	IgnoreEOS           bool            `json:"ignore_eos"`
	Stop                json.RawMessage `json:"stop"`
	StopTokenIDs        []int           `json:"stop_token_ids"`
	N                   int             `json:"n"`
	Seed                *int64          `json:"seed"`
	Temperature         *float64        `json:"temperature"`
	TopK                int             `json:"top_k"`
	FrequencyPenalty    float64         `json:"frequency_penalty"`
	PresencePenalty     float64         `json:"presence_penalty"`
	RepetitionPenalty   float64         `json:"repetition_penalty"`
	RepeatPenalty       float64         `json:"repeat_penalty"` // of llama.cpp

	Logprobs       json.RawMessage `json:"logprobs"` // a number in completions, true in chats
	TopLogprobs    int             `json:"top_logprobs"`
	NProbs         int             `json:"n_probs"` // of llama.cpp
	PromptLogprobs *int            `json:"prompt_logprobs"`
	ReturnTokenIDs bool            `json:"return_token_ids"`
	ReturnTokens   bool            `json:"return_tokens"` // of llama.cpp

	ReturnPromptTokenIDs bool `json:"return_prompt_token_ids"`     // of SGLang
	InputIDsInExt        bool `json:"return_input_ids_in_sglext"`  // of SGLang
	OutputIDsInExt       bool `json:"return_output_ids_in_sglext"` // of SGLang
	PingInterval         *int `json:"sse_ping_interval"`           // of llama.cpp, in seconds; negative for none

	Tools []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
	ToolChoice     json.RawMessage `json:"tool_choice"`
	ResponseFormat *struct {
		Type string `json:"type"`
	} `json:"response_format"`

	ContinueFinalMessage json.RawMessage `json:"continue_final_message"` // true, or with llama.cpp the name of a field
	AddGenerationPrompt  *bool           `json:"add_generation_prompt"`

	SamplingParams *samplingParams `json:"sampling_params"` // of SGLang's own form
	ReturnLogprob  bool            `json:"return_logprob"`
	LogprobStart   *int            `json:"logprob_start_len"`
}

// samplingParams are how SGLang's own form of request says how to generate.
type samplingParams struct {
	MaxNewTokens *int            `json:"max_new_tokens"`
	MinNewTokens int             `json:"min_new_tokens"`
	IgnoreEOS    bool            `json:"ignore_eos"`
	Stop         json.RawMessage `json:"stop"`
	Seed         *int64          `json:"sampling_seed"`
	Temperature  *float64        `json:"temperature"`
	TopK         int             `json:"top_k"`
	N            int             `json:"n"`
}

// tools are the names of those that may be called.
func (b *body) tools() []string {
	if string(b.ToolChoice) == `"none"` {
		return nil
	}
	names := make([]string, 0, len(b.Tools))
	for _, tool := range b.Tools {
		names = append(names, tool.Function.Name)
	}
	return names
}

// logprobs says how many alternatives a request wants beside each token; negative for no logprobs at all.
func (b *body) logprobs() int {
	var number int
	if json.Unmarshal(b.Logprobs, &number) == nil && len(b.Logprobs) > 0 && string(b.Logprobs) != "null" {
		return number
	}
	if string(b.Logprobs) == "true" {
		return b.TopLogprobs
	}
	if b.NProbs > 0 {
		return b.NProbs
	}
	return -1
}

// ruled says whether a grammar is asked for.
func (b *body) ruled() bool {
	return b.ResponseFormat != nil && b.ResponseFormat.Type != "" && b.ResponseFormat.Type != "text"
}

// goesOn says whether the continuing of the last message is asked for by name.
func (b *body) goesOn() bool {
	return !slices.Contains([]string{"", "null", "false"}, string(b.ContinueFinalMessage))
}

// lastIsAssistant says whether the chat ends with what an assistant has said.
func (b *body) lastIsAssistant() bool {
	return len(b.Messages) > 0 && b.Messages[len(b.Messages)-1].Role == "assistant"
}

// continues says whether something is to be continued: see [Request].
func (b *body) continues() bool {
	prompts, ids, err := parsePrompts(b.Prompt)
	return b.lastIsAssistant() || len(b.InputIDs) > 0 || err == nil && ids && len(prompts) > 0
}

// stops are the stop strings: one, or a list.
func stops(raw json.RawMessage) []string {
	var one string
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list
}

// parsePrompts reads a prompt in any of its forms: a text, a list of texts, ids, a list of ids. Lists that mix texts and ids are one prompt
// (llama.cpp). ids says that there were some.
func parsePrompts(raw json.RawMessage) (prompts [][]int, ids bool, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, false, nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return [][]int{theVocabulary.encode(text, true)}, false, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, false, err
	}
	var one []int
	for _, item := range list {
		if id := 0; json.Unmarshal(item, &id) == nil {
			one = append(one, id)
			ids = true
			continue
		}
		inner, innerIDs, err := parsePrompts(item)
		if err != nil {
			return nil, false, err
		}
		ids = ids || innerIDs
		if len(one) > 0 && len(inner) == 1 {
			one = append(one, inner[0]...)
			continue
		}
		prompts = append(prompts, inner...)
	}
	if len(one) > 0 {
		prompts = append(prompts, one)
	}
	return prompts, ids, nil
}

// continues says of a raw body what [Request.Continues] says.
func continues(raw []byte) bool {
	b := &body{}
	return json.Unmarshal(raw, b) == nil && b.continues()
}
