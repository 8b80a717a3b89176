package engines_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
	"github.com/connswap/connswap/shared/wire"
)

// An answer to a chat ends with a sentence, by itself, wherever it is taken up.
func TestAnswersEnd(t *testing.T) {
	e := build(t, "markov")
	for seed := range uint64(20) {
		req := engine.Request{Prompt: "Tell me", Seed: seed, API: "chat.completions", Body: []byte(`{}`), Choices: 1}
		g, err := e.Open(t.Context(), req, nil, ignore)
		if err != nil {
			t.Fatal(err)
		}
		text, made := "", 0
		for ; ; made++ {
			chunk, err := g.Next(t.Context())
			if finish, over := engine.Finished(err); over {
				if finish.Reason != engine.Stop || finish.Usage != (engine.Usage{Prompt: 2, Completion: made}) {
					t.Errorf("after %d tokens: %+v", made, finish)
				}
				break
			}
			if err != nil || made > 1000 {
				t.Fatalf("token %d: %v", made, err)
			}
			text += string(chunk.Text)
		}
		if !strings.ContainsAny(text[len(text)-1:], ".?!") || made < 60 {
			t.Errorf("%d tokens that end in %q", made, text[max(0, len(text)-20):])
		}
		req.Body = []byte(`{"ignore_eos":true}`)
		generate(t, e, req, nil, made+100)
	}
	enginetest.Run(t, func() engine.Engine { return build(t, "markov") },
		engine.Request{Prompt: "Tell me", API: "chat.completions", Body: []byte(`{}`), Seed: 3, Choices: 1, MaxTokens: 500})
}

// What built-in engines cannot do they refuse by name, rather than answer something else.
func TestRefusedWishes(t *testing.T) {
	for body, want := range map[string]string{
		`{"response_format":{"type":"json_object"}}`:                        `response_format "json_object"`,
		`{"text":{"format":{"type":"json_schema"}}}`:                        `response_format "json_schema"`,
		`{"tool_choice":"required"}`:                                        "tool_choice",
		`{"logprobs":true}`:                                                 "logprobs",
		`{"logprobs":5}`:                                                    "logprobs",
		`{"tools":[{"type":"function"}],"tool_choice":"auto"}`:              "",
		`{"logprobs":false,"response_format":{"type":"text"},"other":[{}]}`: "",
	} {
		for _, name := range names {
			_, err := build(t, name).Open(t.Context(), engine.Request{API: "chat.completions", Body: []byte(body), Choices: 1}, nil, ignore)
			if (want == "") != (err == nil) || want != "" && (!errors.Is(err, &wire.Error{Code: wire.CodeInvalid}) || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %s: %v", name, body, err)
			}
		}
	}
}
