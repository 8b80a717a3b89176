package servertest_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

const chatPath, completionsPath = "/v1/chat/completions", "/v1/completions"

func TestAStreamDecodes(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.chat("hello [[length 30]]"))
		if r.status != 200 || r.err != nil || r.garbage > 0 || !r.done || r.openTail != "" {
			t.Fatalf("status %d, error %v, %d garbage, done %v, tail %q", r.status, r.err, r.garbage, r.done, r.openTail)
		}
		if finish := r.finish(0); finish != "stop" {
			t.Errorf("finish %q", finish)
		}
		if made := r.usage("completion_tokens"); made != 31 { // and the one that ends it
			t.Errorf("%d tokens in\n%s", made, r.raw)
		}
		id := r.events[0]["id"]
		for _, event := range r.events {
			if event["id"] != id || event["object"] != "chat.completion.chunk" || event["model"] != "m" {
				t.Errorf("event %v", event)
			}
		}
		_, whole := c.json(chatPath, c.with(c.chat("hello [[length 30]]"), object{"stream": false}))
		if content := field(whole, "choices", 0, "message", "content"); content != r.text(0, "content") || content == "" {
			t.Errorf("streamed %q, whole %q", r.text(0, "content"), content)
		}
		if c.server.Events() != len(r.events)+1 {
			t.Errorf("%d events, seen %d", c.server.Events(), len(r.events)+1)
		}
	})
}

func TestKindsMakeTheSameTexts(t *testing.T) {
	texts := map[string]bool{}
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.chat("the same everywhere"))
		texts[r.text(0, "content")] = true
	})
	if len(texts) != 1 {
		t.Errorf("different texts: %v", texts)
	}
}

func TestTextsAreRepeatedBySeeds(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	text := func(more object) string {
		r := c.stream(chatPath, c.with(c.chat("hello"), more))
		return r.text(0, "content")
	}
	greedy, seeded := text(nil), text(object{"temperature": 0.8, "seed": 7})
	if again := text(nil); again != greedy {
		t.Error("greedy texts differ")
	}
	if again := text(object{"temperature": 0.8, "seed": 7}); again != seeded {
		t.Error("texts of one seed differ")
	}
	for what, other := range map[string]string{
		"another seed":     text(object{"temperature": 0.8, "seed": 8}),
		"none":             text(object{"temperature": 0.8}),
		"another question": text(object{"messages": []object{{"role": "user", "content": "hello you"}}}),
		"greedy":           greedy,
	} {
		if other == seeded {
			t.Errorf("with %s the text is the same", what)
		}
	}
	c.server.Upgrade("", "", "weights-2")
	if text(nil) == greedy {
		t.Error("other weights make the same text")
	}
}

func TestReasoningComesFirst(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		name := map[servertest.Kind]string{servertest.VLLM: "reasoning", servertest.Ollama: "reasoning"}[kind]
		if name == "" {
			name = "reasoning_content"
		}
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.chat("[[think 9]] [[length 12]]"))
		if r.text(0, name) == "" || r.text(0, "content") == "" {
			t.Fatalf("reasoning %q, content %q", r.text(0, name), r.text(0, "content"))
		}
		if strings.Contains(r.text(0, name)+r.text(0, "content"), "think>") {
			t.Error("the mark of reasoning is shown")
		}
		if strings.LastIndex(r.raw, `"`+name+`":" `) > strings.LastIndex(r.raw, `"content":" `) {
			t.Error("reasoning after content")
		}
	})
}

func TestRefusals(t *testing.T) {
	c := start(t, servertest.OpenAI, servertest.Options{})
	r := c.stream(chatPath, c.chat("[[refuse]]"))
	if r.text(0, "refusal") == "" || r.text(0, "content") != "" {
		t.Errorf("refusal %q, content %q", r.text(0, "refusal"), r.text(0, "content"))
	}
}

// calls puts the tool calls of a stream together.
func calls(r *read) (names, ids, arguments []string) {
	r.choices(func(_ int, choice object) {
		list, _ := field(choice, "delta", "tool_calls").([]any)
		for _, call := range list {
			if name, ok := field(call, "function", "name").(string); ok {
				id, _ := field(call, "id").(string)
				names, ids, arguments = append(names, name), append(ids, id), append(arguments, "")
			}
			index, _ := field(call, "index").(float64)
			part, _ := field(call, "function", "arguments").(string)
			arguments[int(index)] += part
		}
	})
	return names, ids, arguments
}

func TestToolCalls(t *testing.T) {
	tools := object{"tools": []object{
		{"type": "function", "function": object{"name": "weather"}}, {"type": "function", "function": object{"name": "clock"}},
	}}
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		request := c.with(c.chat("[[calls 2]]"), tools)
		first, second := c.stream(chatPath, request), c.stream(chatPath, request)
		names, ids, arguments := calls(&first)
		_, otherIDs, otherArguments := calls(&second)
		if !reflect.DeepEqual(names, []string{"weather", "clock"}) || first.finish(0) != "tool_calls" {
			t.Fatalf("names %q, finish %q in\n%s", names, first.finish(0), first.raw)
		}
		if !reflect.DeepEqual(arguments, otherArguments) || ids[0] == otherIDs[0] {
			t.Errorf("arguments %q and %q, ids %q and %q", arguments, otherArguments, ids, otherIDs)
		}
		for _, one := range arguments {
			if !json.Valid([]byte(one)) {
				t.Errorf("arguments %q", one)
			}
		}
		_, whole := c.json(chatPath, c.with(request, object{"stream": false}))
		if got := field(whole, "choices", 0, "message", "tool_calls", 1, "function", "arguments"); got != arguments[1] {
			t.Errorf("whole %q, streamed %q", got, arguments[1])
		}
		none := c.stream(chatPath, c.with(request, object{"tool_choice": "none"}))
		if names, _, _ := calls(&none); len(names) > 0 || none.text(0, "content") == "" {
			t.Error("a call although tool_choice is none")
		}
	})
}

func TestJSONAnswers(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.with(c.chat("hello [[think 4]]"), object{"response_format": object{"type": "json_object"}}))
		if text := r.text(0, "content"); !json.Valid([]byte(text)) || text[0] != '{' {
			t.Errorf("%q is not JSON", text)
		}
	})
}

func TestSeveralTexts(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	r := c.stream(chatPath, c.with(c.chat("hello [[length 20]]"), object{"n": 2, "temperature": 1, "seed": 3}))
	if r.finish(0) != "stop" || r.finish(1) != "stop" || r.text(0, "content") == r.text(1, "content") {
		t.Errorf("finishes %q and %q", r.finish(0), r.finish(1))
	}
	changes, last := 0, 0
	r.choices(func(i int, _ object) {
		if i != last {
			changes++
		}
		last = i
	})
	if changes < 20 {
		t.Errorf("the texts are not interleaved: %d changes", changes)
	}
	if made := r.usage("completion_tokens"); made != 42 {
		t.Errorf("%d tokens", made)
	}
}

func TestLogprobs(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.with(c.chat("hello [[length 20]] [[emoji]]"), object{"logprobs": true, "top_logprobs": 2}))
		var bytes []byte
		r.choices(func(_ int, choice object) {
			list, _ := field(choice, "logprobs", "content").([]any)
			for _, one := range list {
				if top, _ := field(one, "top_logprobs").([]any); len(top) == 0 || len(top) > 2 {
					t.Errorf("%d top logprobs", len(top))
				}
				for _, b := range numbers(field(one, "bytes")) {
					bytes = append(bytes, byte(b))
				}
			}
		})
		if text := r.text(0, "content"); string(bytes) != text || text == "" {
			t.Errorf("logprobs are for %q, the text is %q", bytes, text)
		}
	})
	c := start(t, servertest.VLLM, servertest.Options{})
	r := c.stream(completionsPath, object{"model": "m", "prompt": "hello", "stream": true, "logprobs": 1, "temperature": 0})
	if tokens, _ := field(r.events[3], "choices", 0, "logprobs", "tokens").([]any); len(tokens) != 1 {
		t.Errorf("logprobs of a completion: %v", r.events[3])
	}
}

func TestCharactersAreWhole(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		r := c.stream(chatPath, c.chat("[[emoji]] [[length 120]]"))
		text := r.text(0, "content")
		if strings.ContainsRune(text, '\uFFFD') || len(text) == len([]rune(text)) {
			t.Errorf("text %q", text)
		}
		pieces := 0
		r.choices(func(_ int, choice object) {
			if content, _ := field(choice, "delta", "content").(string); content != "" {
				pieces++
			}
		})
		if pieces >= r.usage("completion_tokens")-10 {
			t.Errorf("%d pieces for %d tokens: no character had several", pieces, r.usage("completion_tokens"))
		}
	})
}

func TestWhereTextsEnd(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	ask := func(more object) read { return c.stream(chatPath, c.with(c.chat("hello [[length 30]]"), more)) }
	plain := ask(nil)
	text := plain.text(0, "content")
	if r := ask(object{"max_tokens": 7}); r.finish(0) != "length" || r.usage("completion_tokens") != 7 || !strings.HasPrefix(text, r.text(0, "content")) {
		t.Errorf("max_tokens: finish %q, %d tokens", r.finish(0), r.usage("completion_tokens"))
	}
	if r := ask(object{"min_tokens": 60}); r.usage("completion_tokens") != 61 {
		t.Errorf("min_tokens: %d tokens", r.usage("completion_tokens"))
	}
	if r := ask(object{"ignore_eos": true, "max_tokens": 90}); r.finish(0) != "length" || r.usage("completion_tokens") != 90 {
		t.Errorf("ignore_eos: finish %q, %d tokens", r.finish(0), r.usage("completion_tokens"))
	}
	stop := text[len(text)/2 : len(text)/2+6]
	r := ask(object{"stop": []string{stop, "never"}})
	if want, _, _ := strings.Cut(text, stop); r.text(0, "content") != want || r.finish(0) != "stop" || !strings.Contains(r.raw, `"stop_reason":"`+stop) {
		t.Errorf("stop %q in %q: %q, finish %q", stop, text, r.text(0, "content"), r.finish(0))
	}
}
