package openai

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestFields has what the director reads of a request. The rest stays as it came.
func TestFields(t *testing.T) {
	for body, want := range map[string]*wirepb.Request{
		`{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"Hi"},{"role":"assistant","content":"x"}],"seed":7}`: {
			Model: "m", Prompt: "Hi", Seed: 7, Choices: 1,
		},
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"b"}]}],"seed":-1,"stop":"x"}`: {
			Prompt: "ab", Seed: 1<<64 - 1, Choices: 1, Stop: []string{"x"},
		},
		`{"messages":[{"role":"tool","content":"t"}],"seed":0,"stop":["x","","y"],"n":3,"max_tokens":5,"unknown":{"a":[1,2]}}`: {
			Prompt: "t", Choices: 3, Stop: []string{"x", "y"}, MaxTokens: 5,
		},
		`{"messages":[{"role":"user","content":null}],"seed":1,"max_tokens":5,"max_completion_tokens":6,"stop":null,"n":null}`: {
			Seed: 1, Choices: 1, MaxTokens: 6,
		},
	} {
		a, err := parse(chat, []byte(body), 100)
		require.NoError(t, err, body)
		want.Api, want.Body = "chat.completions", []byte(body)
		require.Equal(t, want.String(), a.request.String(), body)
	}
	for body, prompt := range map[string]string{`{"prompt":"a","seed":1}`: "a", `{"prompt":["a"],"seed":1}`: "a", `{"prompt":[1,2],"seed":1}`: ""} {
		a, err := parse(completions, []byte(body), 100)
		require.NoError(t, err, body)
		require.Equal(t, prompt, a.request.GetPrompt(), body)
	}
	a, err := parse(responses, []byte(`{"input":[{"role":"user","content":"q"},{"type":"function_call_output","call_id":"c","output":"o"}],"max_output_tokens":9,"stream":true}`), 100)
	require.NoError(t, err)
	require.Equal(t, "q", a.request.GetPrompt())
	require.EqualValues(t, 9, a.request.GetMaxTokens())
	require.True(t, a.stream)
	require.Len(t, a.input, 2)

	one, err := parse(chat, []byte(`{"messages":[{"role":"user","content":""}]}`), 100)
	require.NoError(t, err)
	other, err := parse(chat, []byte(`{"messages":[{"role":"user","content":""}]}`), 100)
	require.NoError(t, err)
	require.NotEqual(t, one.request.GetSeed(), other.request.GetSeed(), "the seed of a request that has none is drawn")
}

// TestBadRequests are refused, with the field that is wrong.
func TestBadRequests(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"Hi"}]`
	for _, one := range []struct {
		of          api
		body, param string
		words       string
		status      int
	}{
		{of: chat, body: ``, words: "no JSON object"},
		{of: chat, body: `[]`, words: "no JSON object"},
		{of: chat, body: `{} {}`, words: "no JSON object"},
		{of: chat, body: strings.Repeat(`{"a":`, 20000), words: "no JSON object"},
		{of: chat, body: `{}`, param: "messages", words: "at least one"},
		{of: chat, body: `{"messages":"x"}`, param: "messages"},
		{of: chat, body: `{"messages":[{"content":"x"}]}`, param: "messages", words: "without a role"},
		{of: chat, body: `{"messages":[{"role":"user","content":7}]}`, param: "messages", words: "list of parts"},
		{of: chat, body: `{` + hi + `,"model":7}`, param: "model"},
		{of: chat, body: `{` + hi + `,"stream":"yes"}`, param: "stream", words: "want bool"},
		{of: chat, body: `{` + hi + `,"n":0}`, param: "n", words: "1 to 128"},
		{of: chat, body: `{` + hi + `,"n":129}`, param: "n"},
		{of: chat, body: `{` + hi + `,"n":1.5}`, param: "n"},
		{of: chat, body: `{` + hi + `,"seed":1e400}`, param: "seed"},
		{of: chat, body: `{` + hi + `,"max_tokens":0}`, param: "max_tokens", words: "at least 1"},
		{of: chat, body: `{` + hi + `,"max_completion_tokens":101}`, param: "max_completion_tokens", words: "allows 100"},
		{of: chat, body: `{` + hi + `,"stop":{}}`, param: "stop"},
		{of: chat, body: `{` + hi + `,"stop":["` + strings.Repeat("x", 257) + `"]}`, param: "stop", words: "257 bytes"},
		{of: chat, body: `{` + hi + `,"stop":["1","2","3","4","5","6","7","8","9","a","b","c","d","e","f","g","h"]}`, param: "stop", words: "17 strings"},
		{of: completions, body: `{}`, param: "prompt"},
		{of: completions, body: `{"prompt":[]}`, param: "prompt", words: "empty"},
		{of: completions, body: `{"prompt":["a","b"]}`, param: "prompt", words: "a request for each"},
		{of: completions, body: `{"prompt":{}}`, param: "prompt"},
		{of: responses, body: `{}`, param: "input"},
		{of: responses, body: `{"input":[7]}`, param: "input", words: "item 0"},
		{of: responses, body: `{"input":"x","background":true}`, param: "background", status: http.StatusNotImplemented},
		{of: responses, body: `{"input":"x","conversation":"c"}`, param: "conversation", status: http.StatusNotImplemented},
		{of: responses, body: `{"input":"x","tools":[{"type":"web_search"}]}`, param: "tools", words: "function, custom", status: http.StatusNotImplemented},
		{of: responses, body: `{"input":"x","max_output_tokens":-1}`, param: "max_output_tokens"},
		{of: responses, body: `{"input":"x","n":2}`, param: "n", words: "one text"},
	} {
		_, err := parse(one.of, []byte(one.body), 100)
		var f *failure
		require.ErrorAs(t, err, &f, one.body)
		if one.status == 0 {
			one.status = http.StatusBadRequest
		}
		if f.status != one.status || f.param != one.param || !strings.Contains(f.message, one.words) {
			t.Errorf("%.80s: %d %q: %s", one.body, f.status, f.param, f.message)
		}
	}
}

// FuzzParse has requests of all kinds: each is read, or refused as a client's error.
func FuzzParse(f *testing.F) {
	for _, body := range []string{
		`{"messages":[{"role":"user","content":"Hi"}],"stop":["a"],"n":2,"stream_options":{"include_usage":true}}`,
		`{"prompt":[[1,2]],"max_tokens":3}`, `{"input":[{"role":"user","content":[{"text":"x"}]}],"tools":[{"type":"custom"}]}`,
		`{"messages":null,"prompt":null,"input":null}`, `{"input":"","previous_response_id":"resp_1"}`, "\xff", `{"model":"\u0000"}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, of := range []api{chat, completions, responses} {
			a, err := parse(of, []byte(body), 100)
			var refusal *failure
			switch {
			case err != nil && (!errors.As(err, &refusal) || refusal.status < 400 || refusal.status == 500):
				t.Errorf("%s: %v", of, err)
			case err == nil && (a.request.GetChoices() < 1 || a.request.GetMaxTokens() > 100 || string(a.request.GetBody()) != body):
				t.Errorf("%s: %v", of, a.request)
			}
		}
	})
}
