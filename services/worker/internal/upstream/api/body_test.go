package api

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/connswap/connswap/shared/wire"
)

// patched is what a request of a kind has, as the fields that a case names.
func patched(t *testing.T, kind Kind, call Call) (path string, fields map[string]string) {
	t.Helper()
	req, err := dialectOf(kind, nil).request(call)
	if err != nil {
		t.Fatal(err)
	}
	doc := req.body.bytes()
	if !gjson.ValidBytes(doc) {
		t.Fatalf("no JSON: %s", doc)
	}
	fields = map[string]string{}
	gjson.ParseBytes(doc).ForEach(func(name, value gjson.Result) bool {
		if _, twice := fields[name.Str]; twice {
			t.Errorf("%s twice in %s", name.Str, doc)
		}
		fields[name.Str] = value.Raw
		return true
	})
	return req.path, fields
}

const always = `"model":"srv","stream":true,"seed":7,`

func TestRequests(t *testing.T) {
	usage := `"stream_options":{"include_usage":true}`
	cases := []struct {
		name string
		kind Kind
		call Call
		path string
		want string // all fields
	}{
		{
			"a chat", VLLM,
			Call{API: wire.APIChat, MaxTokens: 50, Body: []byte(`{"model":"x","messages":[ {"role":"user"} ],"stream":false,"seed":null,"n":1,` +
				`"stop":"a","priority":-1,"cache_salt":"s","user":"u","big":12345678901234567890,"odd":{"a" : [1,  2]}}`)},
			pathChat, always + usage + `,"messages":[ {"role":"user"} ],"n":1,"stop":"a","priority":-1,"cache_salt":"s","user":"u",` +
				`"big":12345678901234567890,"odd":{"a" : [1,  2]},"max_tokens":50,"return_token_ids":true`,
		},
		{
			"a seed and options of its own", SGLang,
			Call{API: wire.APIChat, MaxTokens: 5, Body: []byte(`{"seed":1,"stream_options":{"include_usage":false,"x":1},"max_completion_tokens":9,"min_tokens":8,"return_token_ids":true}`)},
			pathChat, `"model":"srv","stream":true,"seed":1,"stream_options":{"include_usage":true,"x":1},"max_completion_tokens":5,"min_tokens":5`,
		},
		{
			"both limits", OpenAI,
			Call{API: wire.APIChat, MaxTokens: 5, Body: []byte(`{"max_tokens":9,"max_completion_tokens":9}`)},
			pathChat, always + usage + `,"max_completion_tokens":5,"max_tokens":5`,
		},
		{
			"a limit whose newer name a server does not know", Ollama,
			Call{API: wire.APIChat, MaxTokens: 5, Body: []byte(`{"max_completion_tokens":9}`)},
			pathChat, always + usage + `,"max_tokens":5`,
		},
		{"never 0", Ollama, Call{API: wire.APIChat, Body: []byte(`{"max_tokens":0}`)}, pathChat, always + usage + `,"max_tokens":1`},
		{
			"a field that is there twice", VLLM,
			Call{API: wire.APICompletions, MaxTokens: 5, Body: []byte(`{"max_tokens":9,"model":"a","mod\u0065l":"b","x":1,"max_tokens":8,"x":2}`)},
			pathCompletions, always + usage + `,"max_tokens":5,"x":2,"return_token_ids":true`,
		},
		{
			"a prompt alone", OpenAI,
			Call{Prompt: "a \"b\"\n", Stop: []string{"x", "\n"}, MaxTokens: 4, Choices: 2},
			pathCompletions, always + usage + `,"prompt":"a \"b\"\n","stop":["x","\n"],"n":2,"max_tokens":4`,
		},
		{
			"SGLang's completions tell ids", SGLang,
			Call{Prompt: "a", MaxTokens: 4},
			pathCompletions, always + usage + `,"prompt":"a","max_tokens":4,"return_token_ids":true`,
		},
		{
			"ids behind a chat", VLLM,
			Call{API: wire.APIChat, MaxTokens: 40, IDs: []uint32{1, 4294967295}, Body: []byte(`{"messages":[],"tools":[],"tool_choice":"auto","response_format":{},` +
				`"chat_template_kwargs":{},"add_generation_prompt":true,"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"seed":9,"stop":["a"],"repetition_penalty":1.1,` +
				`"presence_penalty":1,"frequency_penalty":1,"stop_token_ids":[3],"ignore_eos":true,"min_tokens":30,"logit_bias":{"1":2},"cache_salt":"s","priority":1,"user":"u",` +
				`"max_completion_tokens":60,"logprobs":true,"top_logprobs":2,"unknown":{}}`)},
			pathCompletions, `"model":"srv","stream":true,"prompt":[1,4294967295],"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"seed":9,"stop":["a"],` +
				`"repetition_penalty":1.1,"presence_penalty":1,"frequency_penalty":1,"stop_token_ids":[3],"ignore_eos":true,"min_tokens":10,"logit_bias":{"1":2},` +
				`"cache_salt":"s","priority":1,"user":"u","max_tokens":40,"unknown":{},"return_token_ids":true,` + usage,
		},
		{
			"ids behind completions, by Done", SGLang,
			Call{API: wire.APICompletions, MaxTokens: 40, IDs: []uint32{1}, Done: 4, Body: []byte(`{"prompt":"a","min_tokens":10,"echo":true,"logprobs":1}`)},
			pathCompletions, always + usage + `,"prompt":[1],"min_tokens":6,"logprobs":1,"max_tokens":40,"return_token_ids":true`,
		},
		{
			"text behind a chat", VLLM,
			Call{API: wire.APIChat, MaxTokens: 4, Text: []byte("so \"far"), Body: []byte(`{"messages":[{"role":"user","content":"q"}]}`)},
			pathChat, always + usage + `,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"so \"far"}],"max_tokens":4,` +
				`"continue_final_message":true,"add_generation_prompt":false,"return_token_ids":true`,
		},
		{
			"text behind one that had begun", LlamaCPP,
			Call{API: wire.APIChat, MaxTokens: 4, Text: []byte(" far"), Body: []byte(`{"messages":[{"role":"assistant","content":"so"}]}`)},
			pathChat, always + usage + `,"messages":[{"role":"assistant","content":"so far"}],"max_tokens":4,"continue_final_message":true,"add_generation_prompt":false`,
		},
		{
			"text behind one that was over", VLLM,
			Call{API: wire.APIChat, MaxTokens: 4, Text: []byte("far"), Body: []byte(`{"messages":[{"role":"assistant","content":"so"}]}`)},
			pathChat, always + usage + `,"messages":[{"role":"assistant","content":"so"},{"role":"assistant","content":"far"}],"max_tokens":4,` +
				`"continue_final_message":true,"add_generation_prompt":false,"return_token_ids":true`,
		},
		{
			"text behind one that was not over", VLLM,
			Call{API: wire.APIChat, MaxTokens: 4, Text: []byte(" far"), Body: []byte(`{"continue_final_message":true,` +
				`"messages":[{"role":"assistant","content":"so"}]}`)},
			pathChat, always + usage + `,"messages":[{"role":"assistant","content":"so far"}],"max_tokens":4,` +
				`"continue_final_message":true,"add_generation_prompt":false,"return_token_ids":true`,
		},
		{
			"text behind a chat of Ollama", Ollama,
			Call{API: wire.APIChat, MaxTokens: 4, Text: []byte("so"), Body: []byte(`{"messages":[{"role":"user","content":"q"}]}`)},
			pathChat, always + usage + `,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"so"}],"max_tokens":4`,
		},
		{
			"text behind a prompt", OpenAI,
			Call{API: wire.APICompletions, MaxTokens: 4, Text: []byte(" b"), Body: []byte(`{"prompt":["a"],"echo":true}`)},
			pathCompletions, always + usage + `,"prompt":"a b","max_tokens":4`,
		},
		{"text behind a prompt alone", OpenAI, Call{Prompt: "a", MaxTokens: 4, Text: []byte("b")}, pathCompletions, always + usage + `,"prompt":"ab","max_tokens":4`},
		{
			"llama.cpp's own form", LlamaCPP,
			Call{API: wire.APICompletions, MaxTokens: 4, Body: []byte(`{"prompt":["a"],"stop":"x","repetition_penalty":1.2,"n":1,"top_k":3,"mirostat":2}`)},
			pathNative, always + `"prompt":"a","stop":["x"],"repeat_penalty":1.2,"n_predict":4,"top_k":3,"mirostat":2,"return_tokens":true`,
		},
		{
			"ids in llama.cpp's own form", LlamaCPP,
			Call{API: wire.APIChat, MaxTokens: 4, IDs: []uint32{5, 6}, Body: []byte(`{"messages":[],"max_tokens":9,"temperature":0}`)},
			pathNative, always + `"prompt":[5,6],"n_predict":4,"temperature":0,"return_tokens":true`,
		},
		{
			"logprobs are OpenAI's", LlamaCPP,
			Call{API: wire.APICompletions, MaxTokens: 4, Body: []byte(`{"prompt":"a","logprobs":1}`)},
			pathCompletions, always + usage + `,"prompt":"a","logprobs":1,"max_tokens":4`,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.call.Model, c.call.Seed = "srv", 7
			before := string(c.call.Body)
			path, got := patched(t, c.kind, c.call)
			want := map[string]string{}
			gjson.Parse("{" + c.want + "}").ForEach(func(name, value gjson.Result) bool {
				want[name.Str] = value.Raw
				return true
			})
			if path != c.path || !maps.Equal(got, want) {
				t.Errorf("%s\n got %v\nwant %v", path, got, want)
			}
			if string(c.call.Body) != before {
				t.Errorf("the body is changed: %s", c.call.Body)
			}
		})
	}
}

func TestRequestsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		call  Call
		fault Fault
	}{
		{VLLM, Call{API: wire.APIChat, Body: []byte(`{`)}, Rejected},
		{VLLM, Call{API: wire.APIChat, Body: []byte(`[]`)}, Rejected},
		{VLLM, Call{API: wire.APIChat, Body: []byte(`{"a":` + strings.Repeat("[", 1<<24))}, Rejected},
		{VLLM, Call{API: wire.APIChat, Body: []byte(`{"a":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`)}, Rejected},
		{VLLM, Call{API: wire.APIChat, Body: []byte(`{}`), Text: []byte("a")}, Rejected},
		{VLLM, Call{API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user"}]}`), Text: []byte("a\xf0\x9f")}, Denied},
		{LlamaCPP, Call{API: wire.APIChat, Body: []byte(`{"messages":[{"role":"assistant","content":[]}]}`), Text: []byte("a")}, Denied},
		{VLLM, Call{API: wire.APICompletions, Body: []byte(`{"prompt":[1,2]}`), Text: []byte("a")}, Denied},
		{Ollama, Call{Prompt: "a", IDs: []uint32{1}}, Denied},
		{OpenAI, Call{Prompt: "a", IDs: []uint32{1}}, Denied},
	} {
		_, err := dialectOf(c.kind, nil).request(c.call)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Fault != c.fault || (c.fault == Denied) != errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s, %.99s, %q: %v", c.kind, c.call.Body, c.call.Text, err)
		}
	}
}

func TestWarming(t *testing.T) {
	for kind, want := range map[Kind]string{VLLM: `"max_tokens":1`, Ollama: `"max_tokens":1`, LlamaCPP: `"n_predict":0`} {
		req, err := dialectOf(kind, nil).warming(Call{API: wire.APICompletions, Body: []byte(`{"prompt":"a","n":3,"max_tokens":90}`), MaxTokens: 1})
		if doc := string(req.body.bytes()); err != nil || !strings.Contains(doc, want) || strings.Contains(doc, `"n":3`) {
			t.Errorf("%s: %s, %v", kind, doc, err)
		}
	}
}

func TestSeed(t *testing.T) {
	for _, seed := range []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 63, 1<<64 - 1} {
		if got := seedOf(seed); got < 0 || got > 1<<31-1 {
			t.Errorf("seed %d is sent as %d", seed, got)
		}
	}
	if seedOf(7) != 7 || seedOf(1<<40) == seedOf(1<<41) {
		t.Error("seeds are mixed up")
	}
}

func TestSince(t *testing.T) {
	for version, want := range map[string]bool{
		"0.10.2": true, "0.10.1": false, "0.9.9": false, "v0.11.0rc1": true, "1.0": true, "0.10.2.dev5+g1": true, "dev": true, "": true, "0": false,
	} {
		if since(version, 0, 10, 2) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

func TestPrompt(t *testing.T) {
	for body, want := range map[string][]uint32{`{"prompt":[1,2]}`: {1, 2}, `{"prompt":"a"}`: nil, `{"prompt":["a"]}`: nil} {
		text, ids, err := promptOf(Call{API: wire.APICompletions, Body: []byte(body)})
		if err != nil || !slices.Equal(ids, want) || want == nil && text != "a" {
			t.Errorf("%s: %q, %v, %v", body, text, ids, err)
		}
	}
	for _, body := range []string{`{"prompt":["a","b"]}`, `{"prompt":[[1],[2]]}`, `{"prompt":[-1]}`, `{"prompt":[4294967296]}`} {
		if _, _, err := promptOf(Call{Body: []byte(body)}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", body, err)
		}
	}
}
