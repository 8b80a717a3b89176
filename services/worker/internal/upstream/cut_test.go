package upstream

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// aCase is a request, a server that answers it, and what was measured of its model.
type aCase struct {
	request   engine.Request
	server    *double
	abilities probe.Abilities
	class     engine.Continuity // in which it is gone on with, behind enough
}

// withoutIDs is an answer of a server that tells no ids.
func withoutIDs(pieces []api.Delta) []api.Delta {
	for i := range pieces {
		pieces[i].IDs = nil
	}
	return pieces
}

func serverOf(script []api.Delta, reason string) *double {
	return &double{features: everything(), prompt: []uint32{1, 2, 3}, script: script, finish: engine.Finish{Reason: reason}}
}

// cases are requests of all shapes.
func cases() map[string]aCase {
	emoji := slices.Concat(words(3), []api.Delta{
		{IDs: []uint32{1}, Tokens: 1}, {IDs: []uint32{2}, Tokens: 1}, {IDs: []uint32{3}, Tokens: 1}, {Text: []byte("😀"), IDs: []uint32{4}, Tokens: 1},
	}, words(9))
	var reasoning, tools, two, logprobs []api.Delta
	for _, p := range words(6) {
		p.Channel = engine.Reasoning
		reasoning = append(reasoning, p)
	}
	reasoning = append(reasoning, words(6)...)
	tools = append(tools, words(2)...)
	for index := range 2 {
		for _, text := range []string{"weather", `{"town"`, `:"Bern`, `"}`} {
			tools = append(tools, api.Delta{Channel: engine.ToolCall, Call: &wire.Call{Index: index}, Text: []byte(text), Tokens: 1})
		}
	}
	for i, p := range words(12) {
		p.Choice = i % 2
		two = append(two, p)
	}
	for _, p := range words(8) {
		p.Logprobs = fmt.Appendf(nil, `{"content":[{"token":%q,"logprob":-0.5}],"refusal":null}`, p.Text)
		logprobs = append(logprobs, p)
	}
	ofTwo := chat(`"n":2`)
	ofTwo.Choices = 2
	both := serverOf(two, engine.Stop)
	both.finish.Reasons = []string{engine.Stop, engine.Stop}
	short := chat(`"max_tokens":9`)
	short.MaxTokens = 9
	noPrompt := plainDouble(12)
	noPrompt.features.Prompt = false
	return map[string]aCase{
		"by ids":               {chat(""), plainDouble(24), exact, engine.Exact},
		"by ids, greedy":       {chat(`"temperature":0`), plainDouble(24), probe.Abilities{Class: probe.IDs, Greedy: true}, engine.Verified},
		"greedy check":         {chat(`"temperature":0`), plainDouble(24), probe.Abilities{Class: probe.Text}, engine.Verified},
		"an emoji":             {chat(""), serverOf(emoji, engine.Stop), exact, engine.Exact},
		"an emoji, again":      {chat(""), serverOf(emoji, engine.Stop), replayable, engine.Verified},
		"up to its limit":      {short, plainDouble(24), exact, engine.Exact},
		"again":                {chat(""), plainDouble(12), replayable, engine.Verified},
		"again, to its limit":  {short, plainDouble(24), replayable, engine.Verified},
		"no ids as a prompt":   {chat(""), noPrompt, replayable, engine.Verified},
		"no ids":               {chat(""), serverOf(withoutIDs(words(12)), engine.Stop), exact, engine.Verified},
		"reasoning":            {chat(""), serverOf(reasoning, engine.Stop), exact, engine.Verified},
		"tools":                {chat(`"tools":[{"type":"function","function":{"name":"weather"}}]`), serverOf(tools, engine.ToolCalls), exact, engine.Verified},
		"JSON":                 {chat(`"response_format":{"type":"json_object"}`), plainDouble(12), exact, engine.Verified},
		"two choices":          {ofTwo, both, exact, engine.Verified},
		"logprobs":             {chat(`"logprobs":true`), serverOf(logprobs, engine.Stop), exact, engine.Verified},
		"a prompt":             {engine.Request{Prompt: "Hi", MaxTokens: 100, Choices: 1, Fingerprint: theModel.Fingerprint}, plainDouble(20), exact, engine.Exact},
		"penalties":            {chat(`"presence_penalty":0.5`), plainDouble(12), exact, engine.Verified},
		"responses":            {engine.Request{API: wire.APIResponses, Body: []byte(`{"input":"Hi"}`), MaxTokens: 99, Choices: 1, Fingerprint: theModel.Fingerprint}, plainDouble(20), exact, engine.Exact},
		"responses with tools": {engine.Request{API: wire.APIResponses, Body: []byte(`{"input":"Hi","tools":[{"type":"function","name":"weather"}]}`), MaxTokens: 99, Choices: 1, Fingerprint: theModel.Fingerprint}, serverOf(tools, engine.ToolCalls), exact, engine.Verified},
	}
}

// logprobsOf are the entries of chunks, one after the other.
func logprobsOf(all []engine.Chunk) (entries []string) {
	for _, c := range all {
		for _, e := range parse(deltaOf(c).Logprobs)["content"] {
			entries = append(entries, string(e))
		}
	}
	return entries
}

func withoutChunkIDs(all []engine.Chunk) []engine.Chunk {
	all = slices.Clone(all)
	for i := range all {
		all[i].Tokens = all[i].Count()
		if all[i].TokenIDs = nil; all[i].Tokens == 0 {
			all[i].Tokens = engine.NoTokens
		}
	}
	return all
}

// same fails unless a stream that was cut is the one that was not.
func same(t *testing.T, what string, got, want []engine.Chunk, finish, wanted engine.Finish) {
	t.Helper()
	if slices.ContainsFunc(want, func(c engine.Chunk) bool { return len(c.TokenIDs) != c.Count() }) { // then no ids are told behind a seam
		got, want = withoutChunkIDs(got), withoutChunkIDs(want)
	}
	if a, b := byChannel(got), byChannel(want); a != b {
		t.Fatalf("%s: the text is\n%s, not\n%s", what, a, b)
	}
	if !slices.Equal(logprobsOf(got), logprobsOf(want)) {
		t.Fatalf("%s: log probabilities are %s, not %s", what, logprobsOf(got), logprobsOf(want))
	}
	if !reflect.DeepEqual(finish, wanted) {
		t.Fatalf("%s: the finish is %+v, not %+v", what, finish, wanted)
	}
	if engine.Count(got) != engine.Count(want) {
		t.Fatalf("%s: the chunks stand for %d tokens, not %d", what, engine.Count(got), engine.Count(want))
	}
}

// TestCuts: wherever a stream is cut, another worker goes on with the text that it would have had, and with the same finish.
func TestCuts(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			whole, finish := rest(t, opened(t, engineOf(c.server, c.abilities, Options{}), c.request, nil))
			for cut := 1; cut <= len(whole); cut++ {
				for seed := range uint64(3) {
					c.server.borders = rand.New(rand.NewPCG(seed, uint64(cut)))
					e := engineOf(c.server, c.abilities, Options{})
					g := opened(t, e, c.request, whole[:cut])
					more, ended := rest(t, g)
					same(t, fmt.Sprintf("cut after %d chunks", cut), slices.Concat(whole[:cut], more), whole, ended, finish)
					pledge := g.(engine.Pledging).Pledge()
					if pledge.Resumed != c.class {
						t.Errorf("cut after %d chunks it went on as %d, want %d", cut, pledge.Resumed, c.class)
					}
					if n := g.(engine.Prompted).PromptTokens(); n != finish.Usage.Prompt {
						t.Errorf("the prompt has %d tokens, want %d", n, finish.Usage.Prompt)
					}
				}
				c.server.borders = nil
			}
		})
		quiet(t, c.server)
	}
}

// TestCutsTwice: a third worker goes on with what the second one has made.
func TestCutsTwice(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			e := engineOf(c.server, c.abilities, Options{})
			whole, finish := rest(t, opened(t, e, c.request, nil))
			for cut := range whole {
				c.server.borders = rand.New(rand.NewPCG(5, uint64(cut)))
				second, _ := rest(t, opened(t, e, c.request, whole[:cut]))
				prefix := slices.Concat(whole[:cut], second[:len(second)/2])
				more, ended := rest(t, opened(t, e, c.request, prefix))
				same(t, fmt.Sprintf("cut after %d chunks", cut), slices.Concat(prefix, more), whole, ended, finish)
			}
			c.server.borders = nil
		})
	}
}

// TestCutInACharacter: a prefix may end anywhere.
func TestCutInACharacter(t *testing.T) {
	server := serverOf(withoutIDs([]api.Delta{{Text: []byte("a"), Tokens: 1}, {Text: []byte("😀"), Tokens: 1}, {Text: []byte("b"), Tokens: 1}}), engine.Stop)
	for _, req := range []engine.Request{chat(""), {API: wire.APIChat, Body: chat("").Body, MaxTokens: 9, Choices: 1, Continuity: engine.Text, Tries: 2}} {
		g := opened(t, engineOf(server, replayable, Options{}), req, []engine.Chunk{content("a"), content("\xf0\x9f")})
		more, _ := rest(t, g)
		var text string
		for _, c := range more {
			text += string(c.Text)
		}
		if text != "\x98\x80b" {
			t.Errorf("it went on with %q", text)
		}
	}
}

// TestDetail: what the director reads of tool calls is right behind a seam, too.
func TestDetail(t *testing.T) {
	c := cases()["tools"]
	c.server.script[6].Call.Type = wire.CallCustom
	e := engineOf(c.server, c.abilities, Options{})
	whole, _ := rest(t, opened(t, e, c.request, nil))
	for _, chunk := range whole[2:] {
		var d wire.Detail
		if err := json.Unmarshal(chunk.Data, &d); err != nil || d.Call == nil {
			t.Fatalf("%s: %v", chunk.Data, err)
		}
	}
	if d := wire.ParseDetail(whole[6].Data); d.Call.Index != 1 || d.Call.Type != wire.CallCustom {
		t.Errorf("%s", whole[6].Data)
	}
}
