package scripted

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/connswap/connswap/services/worker/engine"
)

// Shape is a kind of answer that streams differ in.
type Shape struct {
	Name   string // also the prompt that it answers
	Text   Text
	Fields map[string]any // of the request, beside the usual ones
	Needed int            // chunks after which the stream is over, whatever the engine says; 0 for none
}

// Shapes are answers of all kinds that a front has to get right, in pieces that tear what belongs together.
func Shapes() []Shape {
	const weather = `{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city","days"],"additionalProperties":false}`
	stops := Words("one ", "two ", "th", "r", "ead ", "th", "re", "e", " four ", "five")
	torn := pieces("Grüße, 東京! 👩‍👩‍👧 naïve\u00a0\"q\"\n\t\\ </s> ", 1, 2, 3, 1, 1)
	calls := append(Of(engine.Reasoning, Words("It ", "needs ", "both.")), Words("Let me ", "look. ")...)
	calls = append(calls, Call(0, "", "weather", `{"ci`, `ty":"Zür`, `ich","days`, `":3}`)...)
	calls = append(calls, Call(1, "", "clock", `{}`)...)
	custom := Call(0, "custom", "shell", "ls ", "-l \"", "x\"\n")
	object := pieces(`{"city":"Z\u00fcrich \"ZH\"","days":3}`, 3, 4, 5, 1)
	told := map[string]any{"include_usage": true}
	reasons := []string{engine.Stop, engine.Length}
	return []Shape{
		{Name: "plain", Text: stop(Words("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "lamp."))},
		{Name: "stop string", Text: stop(stops), Fields: map[string]any{"stop": []string{"three", "never"}, "stream_options": told}, Needed: 8},
		{Name: "multi-byte text", Text: stop(torn)},
		{
			Name: "tools", Text: Text{Chunks: calls, Finish: engine.Finish{Reason: engine.ToolCalls}},
			Fields: map[string]any{"tools": []any{map[string]any{"type": "function", "name": "weather", "parameters": json.RawMessage(weather)}}},
		},
		{
			Name: "custom tools", Text: Text{Chunks: custom, Finish: engine.Finish{Reason: engine.ToolCalls}},
			Fields: map[string]any{"tools": []any{map[string]any{"type": "custom", "name": "shell"}}},
		},
		{Name: "JSON", Text: stop(object), Fields: map[string]any{"response_format": map[string]any{"type": "json_object"}}},
		{
			Name: "n=2", Fields: map[string]any{"n": 2},
			Text: Text{
				Chunks: Beside(Words("A ", "tale ", "of ", "two."), Words("Zwei ", "Gesch", "ichten")),
				Finish: engine.Finish{Reason: reasons[0], Reasons: reasons},
			},
		},
		{
			Name: "logprobs", Fields: map[string]any{"logprobs": true},
			Text: Text{Chunks: Words("So ", "it ", "is", "."), Logprobs: true, Finish: engine.Finish{Reason: engine.Stop}},
		},
		{
			Name: "usage", Fields: map[string]any{"stream_options": told},
			Text: Text{
				Chunks: append(Of(engine.Reasoning, Words("Hm, ", "well. ")), Words("It ", "costs ", "this.")...),
				Finish: engine.Finish{Reason: engine.Stop, Usage: engine.Usage{Prompt: 7, Completion: 5, Cached: 4, Reasoning: 2}},
			},
		},
		{Name: "refusal", Text: stop(Of(engine.Refusal, Words("I ", "will ", "not.")))},
	}
}

// Cuts is how many chunks there can be before a cut, at most. After those that are Needed only the engine's finish is missing, and
// nobody needs it.
func (s Shape) Cuts() int {
	if s.Needed > 0 {
		return s.Needed
	}
	return len(s.Text.Chunks)
}

// Said is what a choice has to say on channels, on all where none is named, as the script has it.
func (s Shape) Said(choice int, channels ...engine.Channel) string {
	var text strings.Builder
	for _, c := range s.Text.Chunks {
		if c.Choice == choice && (len(channels) == 0 || slices.Contains(channels, c.Channel)) {
			text.Write(c.Text)
		}
	}
	if stop, ok := s.Fields["stop"].([]string); ok {
		before, _, _ := strings.Cut(text.String(), stop[0])
		return before
	}
	return text.String()
}

// All is an engine that has all shapes.
func All(shapes []Shape) Engine {
	e := Engine{}
	for _, s := range shapes {
		e[s.Name] = s.Text
	}
	return e
}

func stop(chunks []engine.Chunk) Text {
	return Text{Chunks: chunks, Finish: engine.Finish{Reason: engine.Stop}}
}

// pieces tears a text into chunks of so many bytes, over and over.
func pieces(text string, sizes ...int) (all []engine.Chunk) {
	for i := 0; len(text) > 0; i++ {
		n := min(len(text), sizes[i%len(sizes)])
		all = append(all, Words(text[:n])...)
		text = text[n:]
	}
	return all
}
