package api_test

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// Ollama 0.17.4 names a model's parameters in another order each time, and template and digest are what a text depends on.
func TestOllamaModels(t *testing.T) {
	asked := atomic.Int32{}
	show := func(parameters, template string) map[string]any {
		return map[string]any{"parameters": parameters, "template": template, "capabilities": []string{"completion", "embedding"}}
	}
	s := answering(t, api.Auto, func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{}
		switch r.URL.Path {
		case "/v1/models":
			answer["data"] = []map[string]any{{"id": "m:latest", "owned_by": "library"}}
		case "/api/version":
			answer["version"] = "0.17.4"
		case "/api/tags":
			answer["models"] = []map[string]any{{"name": "m:latest", "digest": "d1"}}
		case "/api/show":
			answer = show("num_ctx                        4096\ntemperature                    0", "{{ .Prompt }}\n")
			if asked.Add(1) == 2 {
				answer = show("temperature                    0\nnum_ctx                        4096", "{{ .Prompt }}\n")
			}
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer) //nolint:errcheck // a client that has gone is told nothing
	})
	first, err := s.Identify(t.Context())
	if err != nil || first.Kind != api.Ollama || first.Version != "0.17.4" || first.Models[0].Context != 4096 {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := s.Identify(t.Context())
	if err != nil || second.Models[0] != first.Models[0] {
		t.Errorf("%+v, then %+v, %v", first, second, err)
	}
	if !s.Features().Text[wire.APICompletions] || len(s.Answers()) != 1 {
		t.Errorf("%+v, %v", s.Features(), s.Answers())
	}
}
