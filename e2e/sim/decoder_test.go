package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/connswap/connswap/services/worker/engine"
)

// sdks decode server-sent events as the official SDKs of OpenAI do: what they hand to their callers, and where they fail. That of Go
// is the SDK itself; of the others it is written down here what they make of each line.
var sdks = map[string]func(body string) (events []json.RawMessage, err error){
	"go": decodeGo, "python": decodePython, "node": decodeNode,
}

func decodeGo(body string) (events []json.RawMessage, err error) {
	response := &http.Response{Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(strings.NewReader(body))}
	stream := ssestream.NewStream[json.RawMessage](ssestream.NewDecoder(response), nil)
	defer stream.Close() //nolint:errcheck // nothing depends on it
	for stream.Next() {
		events = append(events, bytes.Clone(stream.Current()))
	}
	return events, stream.Err()
}

// decodePython: an empty line ends an event if there was any field, also an id, which is kept for ever; and each event has to have
// JSON.
func decodePython(body string) (events []json.RawMessage, err error) {
	var name, id string
	var data []string
	retry := false
	for line := range lines(body) {
		field, value := fieldOf(line)
		switch {
		case line == "" && name == "" && id == "" && len(data) == 0 && !retry:
		case line == "":
			all := strings.Join(data, "\n")
			name, data, retry = "", nil, false
			if strings.HasPrefix(all, "[DONE]") {
				return events, nil
			}
			if err := usable(all); err != nil {
				return events, err
			}
			events = append(events, json.RawMessage(all))
		case field == "event":
			name = value
		case field == "data":
			data = append(data, value)
		case field == "id":
			id = value
		case field == "retry":
			retry = true
		}
	}
	return events, nil
}

// decodeNode: an empty line ends an event that has a name or data. Any that is called error is one.
func decodeNode(body string) (events []json.RawMessage, err error) {
	var name string
	var data []string
	for line := range lines(body) {
		field, value := fieldOf(line)
		switch {
		case line == "" && name == "" && len(data) == 0:
		case line == "":
			all, called := strings.Join(data, "\n"), name
			name, data = "", nil
			if all == "[DONE]" {
				return events, nil
			}
			if called == "error" {
				return events, errors.New("an event that is called error")
			}
			if err := usable(all); err != nil {
				return events, err
			}
			events = append(events, json.RawMessage(all))
		case field == "event":
			name = value
		case field == "data":
			data = append(data, value)
		}
	}
	return events, nil
}

// lines are those that have an end.
func lines(body string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(body) {
			if text, ended := strings.CutSuffix(line, "\n"); ended && !yield(strings.TrimSuffix(text, "\r")) {
				return
			}
		}
	}
}

// fieldOf takes a line apart. A comment is a field without a name.
func fieldOf(line string) (name, value string) {
	name, value, _ = strings.Cut(line, ":")
	return name, strings.TrimPrefix(value, " ")
}

// usable returns why an event's data are none for an SDK: they are no JSON, or an error.
func usable(data string) error {
	var parts struct {
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal([]byte(data), &parts); err != nil {
		return err
	}
	if len(parts.Error) > 0 && string(parts.Error) != "null" {
		return fmt.Errorf("the stream has an error: %s", parts.Error)
	}
	return nil
}

// heard is what a caller of an SDK makes of an answer: what it says, by choice and channel, with the tool calls.
type heard struct {
	ids      map[string]bool // of the answer
	texts    map[int]map[engine.Channel]string
	calls    map[int][]toolCall // by choice
	finishes map[int]string
	usage    string // as JSON
	over     bool   // there is a word that it is complete, which is the only proof
}

type toolCall struct{ id, name, input string }

// hear puts the events of a stream together, as callers do.
func hear(family string, events []json.RawMessage) (*heard, error) {
	h := &heard{ids: map[string]bool{}, texts: map[int]map[engine.Channel]string{}, calls: map[int][]toolCall{}, finishes: map[int]string{}}
	var sum openai.ChatCompletionAccumulator
	for n, raw := range events {
		var err error
		switch family {
		case "responses":
			err = h.hearEvent(n, raw)
		case "chat":
			var chunk openai.ChatCompletionChunk
			if err = json.Unmarshal(raw, &chunk); err == nil && !sum.AddChunk(chunk) {
				err = errors.New("the accumulator of the SDK refuses the chunk")
			}
			fallthrough
		default:
			err = errors.Join(err, h.hearChunk(raw))
		}
		if err != nil {
			return h, fmt.Errorf("event %d, %.300s: %w", n, raw, err)
		}
	}
	for choice, texts := range h.texts {
		if family == "chat" && sum.Choices[choice].Message.Content != texts[engine.Content] {
			return h, fmt.Errorf("the accumulator of the SDK has %q", sum.Choices[choice].Message.Content)
		}
	}
	if family != "responses" {
		h.over = len(h.texts) > 0 && len(h.finishes) == len(h.texts)
	}
	if len(h.ids) != 1 {
		return h, fmt.Errorf("the answer is called %v", h.ids)
	}
	return h, nil
}

func (h *heard) add(choice int, channel engine.Channel, text string) {
	if h.texts[choice] == nil {
		h.texts[choice] = map[engine.Channel]string{}
	}
	h.texts[choice][channel] += text
}

// hearChunk takes a chunk of a chat, or of a completion.
func (h *heard) hearChunk(raw json.RawMessage) error {
	var chunk struct {
		ID      string `json:"id"`
		Choices []struct {
			Index  int     `json:"index"`
			Text   string  `json:"text"`
			Finish *string `json:"finish_reason"`
			Delta  struct {
				Content   string `json:"content"`
				Reasoning string `json:"reasoning"`
				Refusal   string `json:"refusal"`
				ToolCalls []struct {
					Index    int    `json:"index"`
					ID       string `json:"id"`
					Function *struct{ Name, Arguments string }
					Custom   *struct{ Name, Input string }
				} `json:"tool_calls"`
			} `json:"delta"`
		} `json:"choices"`
		Usage json.RawMessage `json:"usage"`
	}
	if err := json.Unmarshal(raw, &chunk); err != nil {
		return err
	}
	h.ids[chunk.ID] = true
	if len(chunk.Usage) > 0 && string(chunk.Usage) != "null" {
		h.usage = string(chunk.Usage)
	}
	for _, c := range chunk.Choices {
		if h.finishes[c.Index] != "" {
			return errors.New("something follows the finish")
		}
		if c.Finish != nil {
			h.finishes[c.Index] = *c.Finish
		}
		h.add(c.Index, engine.Content, c.Text+c.Delta.Content)
		h.add(c.Index, engine.Reasoning, c.Delta.Reasoning)
		h.add(c.Index, engine.Refusal, c.Delta.Refusal)
		for _, t := range c.Delta.ToolCalls {
			piece := toolCall{id: t.ID}
			if t.Function != nil {
				piece.name, piece.input = t.Function.Name, t.Function.Arguments
			}
			if t.Custom != nil {
				piece.name, piece.input = t.Custom.Name, t.Custom.Input
			}
			if err := h.call(c.Index, t.Index, piece); err != nil {
				return err
			}
		}
	}
	return nil
}

// call adds to a tool call. As the SDK of Node has it, who it is never changes.
func (h *heard) call(choice, index int, piece toolCall) error {
	all := h.calls[choice]
	switch {
	case index == len(all) && piece.id != "" && piece.name != "":
		h.calls[choice] = append(all, piece)
	case index >= len(all):
		return fmt.Errorf("tool call %d begins without an id and a name", index)
	case piece.id != "" && piece.id != all[index].id || piece.name != "" && piece.name != all[index].name:
		return fmt.Errorf("changed tool call identity: %+v, then %+v", all[index], piece)
	default:
		all[index].input += piece.input
	}
	return nil
}

// hearEvent takes an event of a response. Its numbers have no gap.
func (h *heard) hearEvent(n int, raw json.RawMessage) error {
	var event struct {
		Type     string          `json:"type"`
		Number   int             `json:"sequence_number"`
		Delta    string          `json:"delta"`
		Response json.RawMessage `json:"response"`
	}
	if err := json.Unmarshal(raw, &event); err != nil {
		return err
	}
	switch {
	case event.Number != n:
		return fmt.Errorf("the event has number %d", event.Number)
	case h.over:
		return errors.New("something follows the end")
	}
	switch event.Type {
	case "response.output_text.delta":
		h.add(0, engine.Content, event.Delta)
	case "response.reasoning_text.delta":
		h.add(0, engine.Reasoning, event.Delta)
	case "response.refusal.delta":
		h.add(0, engine.Refusal, event.Delta)
	case "response.created":
		var response struct{ ID string }
		if err := json.Unmarshal(event.Response, &response); err != nil {
			return err
		}
		h.ids[response.ID] = true
	case "response.completed", "response.incomplete":
		h.over = true
		return h.hearWhole("responses", event.Response)
	case "response.failed":
		return errors.New("the response has failed")
	}
	return nil
}

// hearWhole takes an answer that is one document. Where pieces of it came before, the document has to have the same text.
func (h *heard) hearWhole(family string, body []byte) error {
	var answer struct {
		ID      string
		Usage   json.RawMessage
		Status  string
		Choices []struct {
			Index   int
			Text    string
			Finish  string `json:"finish_reason"`
			Message struct {
				Content, Reasoning, Refusal string
				ToolCalls                   []struct {
					ID       string
					Function *struct{ Name, Arguments string }
					Custom   *struct{ Name, Input string }
				} `json:"tool_calls"`
			}
		}
		Output []struct {
			Type             string
			CallID           string `json:"call_id"`
			Name             string
			Arguments, Input string
			Content          []struct{ Type, Text, Refusal string }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	before := h.texts
	h.texts, h.ids[answer.ID], h.usage, h.over = map[int]map[engine.Channel]string{}, true, string(answer.Usage), true
	for _, c := range answer.Choices {
		h.add(c.Index, engine.Content, c.Text+c.Message.Content)
		h.add(c.Index, engine.Reasoning, c.Message.Reasoning)
		h.add(c.Index, engine.Refusal, c.Message.Refusal)
		h.finishes[c.Index] = c.Finish
		for i, t := range c.Message.ToolCalls {
			piece := toolCall{id: t.ID}
			if t.Function != nil {
				piece.name, piece.input = t.Function.Name, t.Function.Arguments
			}
			if t.Custom != nil {
				piece.name, piece.input = t.Custom.Name, t.Custom.Input
			}
			if err := h.call(c.Index, i, piece); err != nil {
				return err
			}
		}
	}
	if family == "responses" {
		h.add(0, engine.Content, "")
	}
	channels := map[string]engine.Channel{"output_text": engine.Content, "reasoning_text": engine.Reasoning, "refusal": engine.Refusal}
	calls := 0
	for _, it := range answer.Output {
		for _, part := range it.Content {
			h.add(0, channels[part.Type], part.Text+part.Refusal)
		}
		if it.CallID != "" {
			if err := h.call(0, calls, toolCall{it.CallID, it.Name, it.Arguments + it.Input}); err != nil {
				return err
			}
			calls++
		}
	}
	for choice, texts := range before {
		for channel, text := range texts {
			if got := h.texts[choice][channel]; got != text {
				return fmt.Errorf("the pieces are %q, the whole is %q", text, got)
			}
		}
	}
	return nil
}

// TestDecoders: what SDKs fail at, and what they take for complete though it is not. No answer ever has it, and this is how it would
// show in TestMatrix.
func TestDecoders(t *testing.T) {
	const (
		head   = `data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}` + "\n\n"
		finish = `data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
		done   = "data: [DONE]\n\n"
		call   = `data: {"id":"a","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"f","arguments":""}}]}}]}` + "\n\n"
		again  = `data: {"id":"a","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_2","function":{"arguments":"{}"}}]}}]}` + "\n\n"
	)
	const all = "go python node"
	for name, test := range map[string]struct {
		body   string
		fail   string // SDKs whose decoders do
		heard  string // what the caller is told of; empty for nothing that is wrong
		broken bool   // it is not complete
	}{
		"plain":                            {body: head + finish + done},
		"a ping between events":            {body: head + ": ping\n" + finish + done},
		"a ping behind an id":              {body: "id: 1\n" + head + ": ping\nid: 2\n" + finish + done},
		"a ping with an empty line":        {body: head + ": ping\n\n" + finish + done},
		"that behind an id":                {body: "id: 1\n" + head + ": ping\n\nid: 2\n" + finish + done, fail: "python", broken: true},
		"an id without data":               {body: "id: 1\n\n" + head + finish + done, fail: "python", broken: true},
		"a retry without data":             {body: "retry: 1\n\n" + head + finish + done, fail: "python", broken: true},
		"empty data":                       {body: head + "data:\n\n" + finish + done, fail: all, broken: true},
		"no JSON":                          {body: head + "data: {\n\n" + finish + done, fail: all, broken: true},
		"an error":                         {body: head + `data: {"error":{"code":"x"}}` + "\n\n", fail: all, broken: true},
		"an error that is null":            {body: strings.Replace(head, "{", `{"error":null,`, 1) + finish + done, fail: "go", broken: true},
		"an event that is called error":    {body: "event: error\n" + head + finish + done, fail: "node", broken: true},
		"something behind [DONE]":          {body: head + finish + "data: [DONE] \n\n", fail: "node"},
		"a line of more than 32 MiB":       {body: head + `data: {"id":"a","x":"` + strings.Repeat("x", 33<<20) + "\"}\n\n" + finish, fail: "go", broken: true},
		"an end without a finish":          {body: head, broken: true},
		"an end without a last empty line": {body: head + strings.TrimSuffix(finish, "\n"), broken: true},
		"[DONE] without a finish":          {body: head + done, broken: true},
		"another id":                       {body: head + strings.Replace(finish, `"a"`, `"b"`, 1) + done, heard: "refuses the chunk"},
		"another tool call":                {body: call + again + finish + done, heard: "changed tool call identity"},
		"text after the finish":            {body: head + finish + head + done, heard: "follows the finish"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && len(test.body) > 1<<20 {
				t.Skip("it takes some seconds")
			}
			for sdk, decode := range sdks {
				events, err := decode(test.body)
				if fails := strings.Contains(test.fail, sdk); fails != (err != nil) {
					t.Errorf("%s: %v, want an error: %v", sdk, err, fails)
				}
				if err != nil {
					continue
				}
				h, err := hear("chat", events)
				if test.heard == "" && err != nil && !test.broken || test.heard != "" && (err == nil || !strings.Contains(err.Error(), test.heard)) {
					t.Errorf("%s: heard %v, want %q", sdk, err, test.heard)
				}
				if err == nil && h.over == test.broken && test.fail == "" {
					t.Errorf("%s: complete: %v", sdk, h.over)
				}
			}
		})
	}
}
