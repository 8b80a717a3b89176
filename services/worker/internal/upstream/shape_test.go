package upstream

import (
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// TestShape: what in a request keeps its answer from being gone on with by ids, or by text.
func TestShape(t *testing.T) {
	tests := map[string]struct {
		fields          string
		notIDs, notText string
	}{
		"nothing":               {``, "", ""},
		"harmless":              {`"n":1,"logprobs":false,"tools":[],"presence_penalty":0.0,"response_format":{"type": "text"},"logit_bias":{"1":2},"top_k":3,"cache_salt":"x","user":"u","stop":["x"],"modalities":["text"]`, "", ""},
		"null":                  {`"n":null,"tools":null,"frequency_penalty":null`, "", ""},
		"tools":                 {`"tools":[{}]`, "tools", "tools"},
		"JSON":                  {`"response_format":{"type":"json_object"}`, "response_format", "response_format"},
		"a schema of vLLM":      {`"structured_outputs":{"json":{}}`, "structured_outputs", "structured_outputs"},
		"a grammar":             {`"grammar":"root ::= x"`, "grammar", "grammar"},
		"logprobs":              {`"logprobs":true`, "logprobs", "logprobs"},
		"best_of":               {`"best_of":2`, "best_of", "best_of"},
		"echo":                  {`"echo":true`, "echo", "echo"},
		"suffix":                {`"suffix":"x"`, "suffix", "suffix"},
		"penalties":             {`"frequency_penalty":0.1`, "frequency_penalty", ""},
		"bad words":             {`"bad_words":["x"]`, "bad_words", ""},
		"a budget for thinking": {`"thinking_token_budget":10`, "thinking_token_budget", "thinking_token_budget"},
		"an image":              {`"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url"}]}]`, "messages", ""},
		"parts of text":         {`"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]`, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := newShape(engine.Request{API: wire.APIChat, Body: []byte(`{` + test.fields + `}`), Choices: 1})
			if err != nil || s.notIDs != test.notIDs || s.notText != test.notText {
				t.Errorf("not by ids for %q, by text for %q, %v", s.notIDs, s.notText, err)
			}
		})
	}
	for body, greedy := range map[string]bool{`{"temperature":0}`: true, `{"temperature":0.0}`: true, `{"temperature":0.1}`: false, `{}`: false, `{"temperature":null}`: false} {
		if s, err := newShape(engine.Request{API: wire.APICompletions, Body: []byte(body)}); err != nil || s.greedy != greedy {
			t.Errorf("%s: greedy %v, %v", body, s.greedy, err)
		}
	}
	for _, req := range []engine.Request{{API: wire.APIChat, Body: []byte(`[`)}, {API: "sculpture"}} {
		if _, err := newShape(req); engine.CodeOf(err).Code != wire.CodeInvalid {
			t.Errorf("%s: %v", req.API, err)
		}
	}
}
