package servertest_test

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// run is an undisturbed answer to a chat, with its ids.
type run struct {
	prompt, ids []int
	text        string
}

// undisturbed asks for an answer as a completion of the ids of a chat.
func (c *client) undisturbed(sampling object) run {
	c.t.Helper()
	_, rendered := c.json("/tokenize", object{"model": "m", "messages": []object{{"role": "user", "content": "hello [[length 40]]"}}})
	prompt := numbers(rendered["tokens"])
	r := c.complete(prompt, sampling)
	if r.finish(0) != "stop" || len(r.ids(0)) != 41 {
		c.t.Fatalf("finish %q, %d ids in\n%s", r.finish(0), len(r.ids(0)), r.raw)
	}
	return run{prompt: prompt, ids: r.ids(0), text: r.text(0, "text")}
}

func (c *client) complete(prompt any, sampling object) read {
	request := object{"model": "m", "prompt": prompt, "stream": true, "return_token_ids": true, "max_tokens": 200}
	r := c.stream(completionsPath, c.with(request, sampling))
	return r
}

var (
	greedy = object{"temperature": 0}
	seeded = object{"temperature": 0.8, "seed": 11}
)

func TestContinuingByIDs(t *testing.T) {
	cases := []struct {
		sampler  servertest.Sampler
		sampling object
		exact    bool
	}{
		{servertest.PositionKeyed, greedy, true},
		{servertest.PositionKeyed, seeded, true},
		{servertest.StateKeyed, greedy, true},
		{servertest.StateKeyed, seeded, false},
	}
	for _, tt := range cases {
		t.Run(fmt.Sprint(tt.sampler, tt.sampling), func(t *testing.T) {
			c := start(t, servertest.VLLM, servertest.Options{Sampler: tt.sampler})
			whole := c.undisturbed(tt.sampling)
			equal := 0
			for cut := 1; cut < 40; cut++ {
				r := c.complete(slices.Concat(whole.prompt, whole.ids[:cut]), tt.sampling)
				if slices.Equal(r.ids(0), whole.ids[cut:]) {
					equal++
				}
			}
			if tt.exact && equal != 39 || !tt.exact && equal > 8 {
				t.Errorf("%d of 39 continuations are exact", equal)
			}
		})
	}
}

func TestUsualSamplers(t *testing.T) {
	for kind, exact := range map[servertest.Kind]bool{servertest.VLLM: true, servertest.LlamaCPP: false} {
		c := start(t, kind, servertest.Options{})
		path := map[servertest.Kind]string{servertest.VLLM: completionsPath, servertest.LlamaCPP: "/completion"}[kind]
		request := object{"model": "m", "prompt": []int{256, 300, 301}, "seed": 4, "max_tokens": 30, "ignore_eos": true, "return_token_ids": true, "return_tokens": true}
		text := func(prompt []int, limit int) []int {
			_, answer := c.json(path, c.with(request, object{"prompt": prompt, "max_tokens": limit}))
			return append(numbers(answer["tokens"]), numbers(field(answer, "choices", 0, "token_ids"))...)
		}
		whole := text([]int{256, 300, 301}, 30)
		if rest := text(append([]int{256, 300, 301}, whole[:10]...), 20); len(whole) != 30 || slices.Equal(rest, whole[10:]) != exact {
			t.Errorf("%s: %v continued with %v", kind, whole, rest)
		}
	}
}

func TestReplaysAreExact(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{Sampler: servertest.StateKeyed})
	first, second := c.undisturbed(seeded), c.undisturbed(seeded)
	if first.text != second.text {
		t.Errorf("%q and %q", first.text, second.text)
	}
}

func TestSGLangGivesIDsWithCompletions(t *testing.T) {
	c := start(t, servertest.SGLang, servertest.Options{})
	whole := c.complete("hello [[length 40]]", seeded)
	prompt := numbers(field(whole.events[0], "choices", 0, "prompt_token_ids"))
	ids := whole.ids(0)
	if len(prompt) < 5 || len(ids) != 41 {
		t.Fatalf("%d ids of the prompt, %d of the text", len(prompt), len(ids))
	}
	if r := c.complete(slices.Concat(prompt, ids[:17]), seeded); !slices.Equal(r.ids(0), ids[17:]) {
		t.Error("the continuation differs")
	}
}

func TestContinuingByTextDrifts(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	whole := c.undisturbed(greedy)
	equal := 0
	for cut := 4; cut < len(whole.text); cut += 4 {
		request := c.with(c.chat(""), object{
			"messages": []object{
				{"role": "user", "content": "hello [[length 40]]"}, {"role": "assistant", "content": whole.text[:cut]},
			},
			"continue_final_message": true, "add_generation_prompt": false,
		})
		if r := c.stream(chatPath, request); whole.text[:cut]+r.text(0, "content") == whole.text {
			equal++
		}
	}
	if all := len(whole.text) / 4; equal == 0 || equal > all/2 {
		t.Errorf("%d of %d continuations by text are exact", equal, all)
	}
}

func TestLlamaGivesTheLastIDOfACharacter(t *testing.T) {
	c := start(t, servertest.LlamaCPP, servertest.Options{})
	_, rendered := c.json("/apply-template", object{"messages": []object{{"role": "user", "content": "[[emoji]] [[length 60]]"}}})
	_, tokenized := c.json("/tokenize", object{"content": rendered["prompt"], "add_special": true})
	request := object{"prompt": tokenized["tokens"], "stream": true, "temperature": 0, "return_tokens": true}
	r := c.stream("/completion", request)
	var text strings.Builder
	var ids []int
	for _, event := range r.events {
		content, _ := event["content"].(string)
		text.WriteString(content)
		ids = append(ids, numbers(event["tokens"])...)
	}
	last := r.events[len(r.events)-1]
	if r.done || last["stop"] != true || last["stop_type"] != "eos" || field(last, "tokens_predicted") != 61.0 {
		t.Errorf("done %v, the last event is %v", r.done, last)
	}
	_, whole := c.json("/completion", c.with(request, object{"stream": false}))
	all := numbers(whole["tokens"])
	if whole["content"] != text.String() || len(all) != 61 || len(ids) >= len(all) {
		t.Errorf("streamed %q with %d ids, whole %q with %d", text.String(), len(ids), whole["content"], len(all))
	}
	if _, piece := c.json("/detokenize", object{"tokens": all[:60]}); piece["content"] != text.String() {
		t.Errorf("the ids are %q", piece["content"])
	}
}

func TestLlamaWarmsUp(t *testing.T) {
	c := start(t, servertest.LlamaCPP, servertest.Options{})
	_, answer := c.json("/completion", object{"prompt": "hello", "n_predict": 0})
	if answer["content"] != "" || answer["stop_type"] != "limit" || c.server.Tokens() != 0 {
		t.Errorf("%d tokens, answer %v", c.server.Tokens(), answer)
	}
}

func TestTrailingMessagesAreContinued(t *testing.T) {
	for _, kind := range []servertest.Kind{servertest.LlamaCPP, servertest.Ollama} {
		c := start(t, kind, servertest.Options{})
		whole := c.stream(chatPath, c.chat("hello"))
		text := whole.text(0, "content")
		request := c.with(c.chat(""), object{"messages": []object{
			{"role": "user", "content": "hello"}, {"role": "assistant", "content": text[:1]},
		}})
		if r := c.stream(chatPath, request); strings.HasPrefix(r.text(0, "content"), text[:8]) {
			t.Errorf("%s begins anew: %q", kind, r.text(0, "content"))
		}
		if requests := c.server.Requests(); requests[0].Continues || !requests[1].Continues {
			t.Errorf("%s: continuations are not recognized", kind)
		}
	}
}

func TestPromptLogprobsRankWhatWasGreedy(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	ranks := func(whole run) (first int) {
		_, answer := c.json(completionsPath, object{
			"model": "m", "prompt": slices.Concat(whole.prompt, whole.ids[:30]), "prompt_logprobs": 1, "max_tokens": 1, "temperature": 0,
		})
		list, _ := field(answer, "choices", 0, "prompt_logprobs").([]any)
		if len(list) != len(whole.prompt)+30 || list[0] != nil {
			t.Fatalf("%d prompt logprobs", len(list))
		}
		for i, id := range whole.ids[:30] {
			if field(list[len(whole.prompt)+i], fmt.Sprint(id), "rank") == 1.0 {
				first++
			}
		}
		return first
	}
	if n := ranks(c.undisturbed(greedy)); n != 30 {
		t.Errorf("%d of 30 greedy tokens have rank 1", n)
	}
	if n := ranks(c.undisturbed(seeded)); n == 30 {
		t.Error("all of 30 sampled tokens have rank 1")
	}
}

func TestPenaltiesCountWhatTheRequestMade(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	sampling := object{"temperature": 0, "frequency_penalty": 1}
	whole := c.complete("hello [[length 120]]", sampling)
	prompt, ids := numbers(field(whole.events[0], "choices", 0, "prompt_token_ids")), whole.ids(0)
	r := c.complete(slices.Concat(prompt, ids[:60]), sampling)
	if slices.Equal(r.ids(0), ids[60:]) {
		t.Error("a continuation with a penalty is exact")
	}
}

func TestCompanyChangesTexts(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{BatchDependent: true})
	alone := c.undisturbed(greedy)
	if again := c.undisturbed(greedy); again.text != alone.text {
		t.Fatal("alone the texts differ")
	}
	c.server.Fail(servertest.Fault{Kind: servertest.Silence, At: 1})
	other := c.post(completionsPath, object{"model": "m", "prompt": "hello", "stream": true})
	defer other.Body.Close()
	lines(t, bufio.NewReader(other.Body), 1)
	if busy := c.undisturbed(greedy); busy.text == alone.text {
		t.Error("with another request the text is the same")
	}
}

func TestIDsThatAreNotTaken(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{NoTokenIDs: true})
	if status, _ := c.json(completionsPath, object{"model": "m", "prompt": []int{300, 301}}); status != 400 {
		t.Errorf("ids: status %d", status)
	}
	if r := c.complete("hello", greedy); len(r.ids(0)) > 0 {
		t.Error("ids are given out")
	}
	c = start(t, servertest.SGLang, servertest.Options{})
	if status, _ := c.json(completionsPath, object{"model": "m", "prompt": []int{300, 30100}}); status != 400 {
		t.Errorf("ids that there are not: status %d", status)
	}
}

func TestGrammarsBeginAnew(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	sampling := object{"temperature": 0, "response_format": object{"type": "json_object"}}
	whole := c.complete("hello", sampling)
	prompt, ids := numbers(field(whole.events[0], "choices", 0, "prompt_token_ids")), whole.ids(0)
	r := c.complete(slices.Concat(prompt, ids[:5]), sampling)
	if !strings.HasPrefix(r.text(0, "text"), "{") {
		t.Errorf("continued with %q", r.text(0, "text"))
	}
}

func TestSGLangsOwnForm(t *testing.T) {
	c := start(t, servertest.SGLang, servertest.Options{})
	request := object{"text": "hello", "sampling_params": object{"max_new_tokens": 9, "temperature": 0}, "return_logprob": true}
	_, whole := c.json("/generate", request)
	ids := numbers(whole["output_ids"])
	if len(ids) != 9 || field(whole, "meta_info", "finish_reason", "type") != "length" {
		t.Fatalf("answer %v", whole)
	}
	r := c.stream("/generate", c.with(request, object{"stream": true}))
	last := r.events[len(r.events)-1]
	if last["text"] != whole["text"] || !r.done {
		t.Errorf("streamed %q, whole %q", last["text"], whole["text"])
	}
	_, more := c.json("/generate", object{
		"input_ids": ids, "sampling_params": object{"max_new_tokens": 1}, "return_logprob": true, "logprob_start_len": 4,
	})
	if list, _ := field(more, "meta_info", "input_token_logprobs").([]any); len(list) != 5 {
		t.Errorf("input logprobs: %v", more)
	}
}

func TestIDsOfChats(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	request := c.with(c.chat("[[think 6]] [[length 20]] [[emoji]]"), object{"return_token_ids": true})
	_, tokenized := c.json("/tokenize", object{"messages": request["messages"]})
	r := c.stream(chatPath, request)
	prompt, ids := numbers(r.events[0]["prompt_token_ids"]), r.ids(0)
	if !slices.Equal(prompt, numbers(tokenized["tokens"])) || len(ids) != r.usage("completion_tokens") {
		t.Fatalf("prompt %v, rendered %v, %d ids of %d", prompt, tokenized["tokens"], len(ids), r.usage("completion_tokens"))
	}
	_, text := c.json("/detokenize", object{"tokens": ids})
	if want := "<think>" + r.text(0, "reasoning") + "</think>" + r.text(0, "content") + "<|end|>"; text["prompt"] != want {
		t.Errorf("the ids are %q, the answer is %q", text["prompt"], want)
	}
}

func TestSGLangTakesIDsInChats(t *testing.T) {
	c := start(t, servertest.SGLang, servertest.Options{})
	request := c.with(c.chat("hello [[length 30]]"), object{
		"return_token_ids": true, "return_prompt_token_ids": true, "return_output_ids_in_sglext": true, "return_input_ids_in_sglext": true,
	})
	_, whole := c.json(chatPath, c.with(request, object{"stream": false}))
	prompt := numbers(field(whole, "choices", 0, "prompt_token_ids"))
	ids := numbers(field(whole, "choices", 0, "token_ids"))
	if len(prompt) == 0 || len(ids) != 31 {
		t.Fatalf("answer %v", whole)
	}
	r := c.stream(chatPath, request)
	ext := r.events[len(r.events)-2]["sglext"]
	if len(r.ids(0)) > 0 || !slices.Equal(numbers(field(ext, "input_ids")), prompt) || !slices.Equal(numbers(field(ext, "output_ids")), ids) {
		t.Errorf("ids at the end: %v", ext)
	}
	_, goneOn := c.json(chatPath, c.with(request, object{"stream": false, "input_ids": slices.Concat(prompt, ids[:11])}))
	if !slices.Equal(numbers(field(goneOn, "choices", 0, "token_ids")), ids[11:]) {
		t.Errorf("continued with %v", goneOn)
	}
	_, tokenized := c.json("/v1/tokenize", object{"prompt": "hello", "add_special_tokens": false})
	if _, text := c.json("/detokenize", object{"tokens": tokenized["tokens"]}); text["text"] != "hello" {
		t.Errorf("there and back: %v", text)
	}
}
