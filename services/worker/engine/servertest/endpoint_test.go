package servertest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

func TestEndpoints(t *testing.T) {
	cases := map[servertest.Kind][]struct {
		path  string
		field []any
		want  any // nil: it has to be there
	}{
		servertest.VLLM: {
			{"/version", []any{"version"}, "1.2.3"},
			{"/v1/models", []any{"data", 0, "max_model_len"}, 4096.0},
			{"/health", nil, nil},
		},
		servertest.SGLang: {
			{"/get_server_info", []any{"version"}, "1.2.3"},
			{"/server_info", []any{"model_path"}, "m"},
			{"/get_model_info", []any{"is_generation"}, true},
			{"/model_info", []any{"weight_version"}, nil},
			{"/health", nil, nil},
			{"/health_generate", nil, nil},
			{"/v1/models", []any{"data", 0, "owned_by"}, "sglang"},
		},
		servertest.LlamaCPP: {
			{"/props", []any{"build_info"}, "1.2.3"},
			{"/props", []any{"model_path"}, "m"},
			{"/props", []any{"total_slots"}, 4.0},
			{"/health", []any{"status"}, "ok"},
			{"/v1/models", []any{"data", 0, "meta", "n_ctx_train"}, 4096.0},
		},
		servertest.Ollama: {
			{"/api/version", []any{"version"}, "1.2.3"},
			{"/api/tags", []any{"models", 0, "digest"}, nil},
			{"/api/ps", []any{"models", 0, "name"}, "m"},
			{"/v1/models", []any{"data", 0, "id"}, "m"},
		},
		servertest.OpenAI: {
			{"/v1/models", []any{"data", 0, "id"}, "m"},
		},
	}
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{Version: "1.2.3", ContextLength: 4096})
		for _, tt := range cases[kind] {
			status, answer := c.get(tt.path)
			got := field(answer, tt.field...)
			if status != 200 || tt.want != nil && got != tt.want || got == nil && tt.field != nil {
				t.Errorf("%s: status %d, %v is %v", tt.path, status, tt.field, got)
			}
		}
		if status, _ := c.get("/nothing"); status != 404 {
			t.Errorf("an unknown path: status %d", status)
		}
	})
}

func TestPlainServersHaveNothingElse(t *testing.T) {
	c := start(t, servertest.OpenAI, servertest.Options{})
	for _, path := range []string{"/health", "/version", "/props", "/api/version", "/get_server_info", "/metrics"} {
		if status, _ := c.get(path); status != 404 {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

func TestDigestsFollowWeights(t *testing.T) {
	digest := func(weights string) any {
		c := start(t, servertest.Ollama, servertest.Options{Weights: weights})
		_, tags := c.get("/api/tags")
		return field(tags, "models", 0, "digest")
	}
	if digest("a") != digest("a") || digest("a") == digest("b") {
		t.Error("the digest is not that of the weights")
	}
	c := start(t, servertest.Ollama, servertest.Options{})
	if status, answer := c.json("/api/show", object{"model": "m"}); status != 200 || answer["template"] == nil {
		t.Errorf("show: status %d, %v", status, answer)
	}
	if status, _ := c.json("/api/show", object{"model": "another"}); status != 404 {
		t.Errorf("show of another model: status %d", status)
	}
}

func TestKeys(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{APIKey: "secret"})
		if status, _ := c.json(chatPath, c.chat("hello")); status != 401 {
			t.Errorf("without the key: status %d", status)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+chatPath, strings.NewReader(question))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer secret")
		response, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("with the key: status %d", response.StatusCode)
		}
	})
}

func TestLoading(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{Loading: true})
		if status, _ := c.json(chatPath, c.chat("hello")); status != 503 {
			t.Errorf("while loading: status %d", status)
		}
		c.server.SetLoading(false)
		if r := c.stream(chatPath, c.chat("hello")); !r.done {
			t.Errorf("afterwards: status %d", r.status)
		}
	})
}

func TestFingerprintsOfVLLMComeAtTheEnd(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{Fingerprint: "fp"})
	for _, usage := range []bool{true, false} {
		r := c.stream(chatPath, c.with(c.chat("hello"), object{"stream_options": object{"include_usage": usage}}))
		for i, event := range r.events {
			if last := i == len(r.events)-1; last != (event["system_fingerprint"] == "fp") {
				t.Errorf("with usage %v, event %d of %d: %v", usage, i, len(r.events), event["system_fingerprint"])
			}
		}
	}
	c.server.Upgrade("9.9", "fp-2", "")
	if _, answer := c.json(chatPath, c.with(c.chat("hello"), object{"stream": false})); answer["system_fingerprint"] != "fp-2" {
		t.Errorf("after the upgrade %v", answer["system_fingerprint"])
	}
}

func TestTrapsOfOllama(t *testing.T) {
	c := start(t, servertest.Ollama, servertest.Options{})
	if status, answer := c.json(completionsPath, object{"model": "m", "prompt": []int{300}}); status != 400 || field(answer, "error", "message") == nil {
		t.Errorf("ids: status %d, %v", status, answer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+completionsPath,
		strings.NewReader(`{"model":"m","prompt":"hello","max_tokens":0,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if n, err := io.CopyN(io.Discard, response.Body, 1<<18); err != nil {
		t.Errorf("max_tokens 0 ends after %d bytes: %v", n, err)
	}
	if status, _ := c.json(chatPath, c.with(c.chat("hello"), object{"model": "another"})); status != 404 {
		t.Errorf("another model: status %d", status)
	}
}

func TestShortDefaults(t *testing.T) {
	for _, kind := range []servertest.Kind{servertest.VLLM, servertest.SGLang, servertest.OpenAI} {
		c := start(t, kind, servertest.Options{})
		_, answer := c.json(completionsPath, object{"model": "m", "prompt": "[[length 40]]"})
		if field(answer, "usage", "completion_tokens") != 16.0 || field(answer, "choices", 0, "finish_reason") != "length" {
			t.Errorf("%s: %v", kind, answer)
		}
		if status, _ := c.json(completionsPath, object{"model": "m", "prompt": "hello", "max_tokens": 0}); status != 400 {
			t.Errorf("%s: max_tokens 0: status %d", kind, status)
		}
	}
}

func TestEmbeddings(t *testing.T) {
	c := start(t, servertest.OpenAI, servertest.Options{})
	vectors := func(inputs ...string) []any {
		_, answer := c.json("/v1/embeddings", object{"model": "m", "input": inputs})
		list, _ := answer["data"].([]any)
		return list
	}
	first := vectors("one", "two")
	if len(first) != 2 || field(first[0], "embedding", 0) == field(first[1], "embedding", 0) {
		t.Fatalf("vectors %v", first)
	}
	if again := vectors("one"); field(again[0], "embedding", 3) != field(first[0], "embedding", 3) {
		t.Error("the vector of a text changes")
	}
}

func TestWhatArrived(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	before := time.Now()
	c.get("/health")
	c.stream(chatPath, c.chat("hello"))
	requests := c.server.Requests()
	if len(requests) != 2 || requests[0].Path != "/health" || requests[1].Path != chatPath {
		t.Fatalf("requests %v", requests)
	}
	if !strings.Contains(string(requests[1].Body), `"hello"`) || requests[1].When.Before(before) || requests[1].Method != http.MethodPost {
		t.Errorf("request %v", requests[1])
	}
	if c.server.Tokens() == 0 || c.server.Running() != 0 {
		t.Errorf("%d tokens, %d running", c.server.Tokens(), c.server.Running())
	}
}
