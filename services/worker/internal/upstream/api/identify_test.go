package api_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// paths answers each path with a document; a number at its beginning is the status, and what is not there is a 404.
func paths(t *testing.T, kind api.Kind, documents map[string]string) *api.Server {
	return answering(t, kind, func(w http.ResponseWriter, r *http.Request) {
		doc, ok := documents[r.URL.Path]
		status := http.StatusOK
		switch {
		case !ok:
			status, doc = http.StatusNotFound, `{"detail":"Not Found"}`
		case strings.HasPrefix(doc, "401"):
			status, doc = http.StatusUnauthorized, `{"error":"no"}`
		case strings.HasPrefix(doc, "503"):
			status, doc = http.StatusServiceUnavailable, `{"error":{"message":"Loading model","code":503}}`
		case strings.HasPrefix(doc, "data:"):
			w.Header().Set("Content-Type", "text/event-stream")
		}
		w.WriteHeader(status)
		io.WriteString(w, doc) //nolint:errcheck // a client that has gone is told nothing
	})
}

const oneModel = `{"object":"list","data":[{"id":"m","created":5,"owned_by":"me","max_model_len":99}]}`

func TestDiscover(t *testing.T) {
	cases := []struct {
		name      string
		documents map[string]string
		kind      api.Kind
		fault     api.Fault
	}{
		{"vLLM of another owner", map[string]string{"/v1/models": oneModel, "/version": `{"version":"0.12.0"}`}, api.VLLM, ""},
		{"SGLang by its newer names", map[string]string{
			"/v1/models": oneModel, "/model_info": `{"model_path":"m","is_generation":true}`, "/server_info": `{"version":"0.5.9","dtype":"auto"}`,
		}, api.SGLang, ""},
		{"llama.cpp behind a page", map[string]string{"/v1/models": oneModel, "/props": `{"default_generation_settings":{"n_ctx":7},"build_info":"b1"}`, "/version": `<html>`}, api.LlamaCPP, ""},
		{"Ollama without models", map[string]string{"/v1/models": `{"data":null}`, "/api/version": `{"version":"0.17.4"}`, "/api/tags": `{"models":[]}`}, api.Ollama, ""},
		{"anything else", map[string]string{"/v1/models": oneModel}, api.OpenAI, ""},
		{"a list of none", map[string]string{"/v1/models": `{"data":[]}`}, api.OpenAI, ""},
		{"no inference server", map[string]string{"/": "hello"}, "", api.Denied},
		{"the key is missing", map[string]string{"/v1/models": "401"}, "", api.Denied},
		{"it is loading", map[string]string{"/v1/models": "503"}, "", api.Gone},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := paths(t, api.Auto, c.documents).Identify(t.Context())
			if e := (*api.Error)(nil); c.name == "the key is missing" && (!errors.As(err, &e) || e.Status != http.StatusUnauthorized) {
				t.Errorf("%#v", err)
			}
			if got.Kind != c.kind || faultOf(err) != c.fault {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// What a server says of itself that differs between equal ones is not part of the fingerprint, what makes another text is.
func TestFingerprintOfSGLang(t *testing.T) {
	of := func(info string) string {
		got, err := paths(t, api.SGLang, map[string]string{
			"/v1/models": oneModel, "/get_model_info": `{"model_path":"m"}`, "/get_server_info": info,
		}).Identify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got.Models[0].Fingerprint
	}
	first := of(`{"version":"0.5.9","dtype":"auto","attention_backend":"fa3","port":30000,"random_seed":1,"internal_states":[{"last_gen_throughput":3}]}`)
	if equal := of(`{"port":30001,"random_seed":2,"version":"0.5.9","dtype":"auto","attention_backend":"fa3","internal_states":[]}`); equal != first {
		t.Errorf("%s and %s", first, equal)
	}
	if other := of(`{"version":"0.5.9","dtype":"auto","attention_backend":"triton"}`); other == first {
		t.Errorf("another backend has %s, too", other)
	}
}

// However long the name of a model is, its fingerprint is short, and another one's is another.
func TestFingerprintOfLongNames(t *testing.T) {
	of := func(name string) string {
		got, err := paths(t, api.OpenAI, map[string]string{"/v1/models": `{"data":[{"id":"` + name + `"}]}`}).Identify(t.Context())
		if err != nil || got.Models[0].Name != name {
			t.Fatalf("%+v, %v", got, err)
		}
		return got.Models[0].Fingerprint
	}
	path := "/models/" + strings.Repeat("x", 300)
	first, second := of(path+"/a.gguf"), of(path+"/b.gguf")
	if first == second || len(first) > 200 || first != of(path+"/a.gguf") {
		t.Errorf("%s and %s", first, second)
	}
}

// A model that makes no text has a fingerprint as well.
func TestFingerprintWithoutText(t *testing.T) {
	s := paths(t, api.VLLM, map[string]string{"/v1/models": oneModel, "/version": `{"version":"0.12.0"}`, "/v1/embeddings": `{}`, "/score": `{}`})
	got, err := s.Identify(t.Context())
	if err != nil || !strings.HasPrefix(got.Models[0].Fingerprint, "vllm:m:") || got.Models[0].Context != 99 {
		t.Errorf("%+v, %v", got, err)
	}
	if answers := strings.Join(s.Answers(), " "); answers != "embeddings score tokenize detokenize" {
		t.Errorf("it answers %s", answers)
	}
}

func TestFeaturesByVersion(t *testing.T) {
	for version, want := range map[string]bool{"0.9.2": false, "0.12.0": true} {
		s := paths(t, api.VLLM, map[string]string{"/v1/models": oneModel, "/version": `{"version":"` + version + `"}`})
		if _, err := s.Identify(t.Context()); err != nil || s.Features().IDs[wire.APIChat] != want {
			t.Errorf("%s: %+v, %v", version, s.Features(), err)
		}
	}
}

func TestHealthWithoutAnEndPoint(t *testing.T) {
	if h, err := paths(t, api.OpenAI, map[string]string{"/v1/models": oneModel}).Health(t.Context()); err != nil || h.Starting {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := paths(t, api.OpenAI, map[string]string{}).Health(t.Context()); faultOf(err) != api.Denied {
		t.Error(err)
	}
	if h, err := paths(t, api.SGLang, map[string]string{"/health": "503"}).Health(t.Context()); err != nil || !h.Starting {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestLoadBySlots(t *testing.T) {
	s := paths(t, api.LlamaCPP, map[string]string{"/slots": `[{"id":0,"is_processing":true},{"id":1,"is_processing":false},{"id":2,"is_processing":true}]`})
	if load, err := s.Load(t.Context()); err != nil || load != (api.Load{Known: true, Running: 2}) {
		t.Errorf("%+v, %v", load, err)
	}
	if load, err := paths(t, api.LlamaCPP, map[string]string{}).Load(t.Context()); err != nil || load.Known {
		t.Errorf("%+v, %v", load, err)
	}
}

// Engines beside each other are added up, the fullest cache counts, and older names are known.
func TestLoadOfSeveralEngines(t *testing.T) {
	s := paths(t, api.VLLM, map[string]string{"/metrics": `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2
vllm:num_requests_running{engine="1"} 3
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 4
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{engine="0"} 0.25
vllm:gpu_cache_usage_perc{engine="1"} 0.5
`})
	if load, err := s.Load(t.Context()); err != nil || load != (api.Load{Known: true, Running: 5, Waiting: 4, Cache: 0.5}) {
		t.Errorf("%+v, %v", load, err)
	}
	if _, err := paths(t, api.VLLM, map[string]string{"/metrics": "<html>"}).Load(t.Context()); faultOf(err) != api.Broken {
		t.Error(err)
	}
}

func TestTokenizeChat(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		call := f.chat("how many tokens are these?", "")
		ids, err := f.Tokenize(t.Context(), call)
		if f.kind != api.VLLM && f.kind != api.LlamaCPP {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%v, %v", ids, err)
			}
			return
		}
		got := read(f.Generate(t.Context(), call))
		if err != nil || len(ids) != got.finish.Usage.Prompt {
			t.Errorf("%d tokens, %v, usage is %+v, %v", len(ids), err, got.finish.Usage, got.end)
		}
	})
}
