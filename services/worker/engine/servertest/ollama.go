package servertest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ollama is Ollama's server. Its ids are three digits, its fingerprint is always the same, a tool call comes whole, and the death of its
// runner looks like the end of a text.
type ollama struct{ openAI }

func (ollama) defaults(o *Options) {
	if o.Model == "" {
		o.Model = "parrot:1b"
	}
	if o.Version == "" {
		o.Version = "0.17.4"
	}
	if o.Weights == "" {
		o.Weights = "weights-1"
	}
	if o.Fingerprint == "" {
		digest := sha256.Sum256([]byte(o.Weights))
		o.Fingerprint = hex.EncodeToString(digest[:])
	}
	o.Ping = -1
}

func (ollama) models(o Options) object {
	return object{"object": "list", "data": []object{{"id": o.Model, "object": "model", "created": 1760000000, "owned_by": "library"}}}
}

func (ollama) servesLoading(path string) bool {
	return strings.HasPrefix(path, "/api/") || path == "/" || path == "/v1/models"
}

func (ollama) newID(f form, r *random) string {
	prefix := "chatcmpl-"
	if f != chatForm {
		prefix = "cmpl-"
	}
	return prefix + strconv.Itoa(int(r.number()%999))
}

func (ollama) newCallID(r *random) string { return "call_" + r.text(8, lowercase) }

func (ollama) prefills(*body) bool { return true }

func (ollama) strict() bool { return false }

func (ollama) check(s *Server, j *job) *failure {
	j.body.N = 1
	j.texts = min(j.texts, 1)
	if prompt := strings.TrimSpace(string(j.body.Prompt)); j.form == completionForm && !strings.HasPrefix(prompt, `"`) {
		return badRequest("json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string")
	}
	if j.limit == 0 {
		j.limit, j.endless = -1, true
	}
	name := strings.TrimSuffix(j.body.Model, ":latest")
	switch {
	case j.body.Model == "":
		return badRequest("model is required")
	case name != strings.TrimSuffix(s.options.Model, ":latest"):
		return &failure{status: http.StatusNotFound, kind: "not_found_error", message: "model '" + j.body.Model + "' not found"}
	default:
		return nil
	}
}

func (ollama) failure(f *failure) any {
	kind, message := f.kind, f.message
	if f.status >= http.StatusInternalServerError {
		kind = "api_error"
	}
	if f.limit > 0 {
		message = "the input length exceeds the context length"
	}
	return object{"error": object{"message": message, "type": kind, "param": nil, "code": nil}}
}

func (d ollama) streamFailure(f *failure) any { return d.failure(f) }

func (ollama) lastWords(j *job) object {
	e := event(j, object{"index": 0, "delta": object{"role": "", "content": ""}, "finish_reason": nil})
	e["model"], e["created"], e["system_fingerprint"] = "", time.Time{}.Unix(), "fp_ollama"
	return e
}

// withholds also the pieces of a call, for they come at once: see events.
func (ollama) withholds(_ *job, p *piece) bool { return p.empty() }

func (ollama) head(*job, int) []object { return nil }

func (d ollama) events(j *job, p *piece) []object {
	if j.form == completionForm {
		c := object{"index": p.text, "text": p.content, "finish_reason": orNull(p.finish)}
		return []object{d.event(j, c)}
	}
	if p.channel == callChannel {
		j.native.add(p)
		if p.finish == "" {
			return nil
		}
	}
	var events []object
	for i, call := range j.native.calls {
		if p.finish == "" {
			break
		}
		function := object{"name": call.name, "arguments": call.arguments}
		calls := []object{{"index": i, "id": call.id, "type": "function", "function": function}}
		events = append(events, d.event(j, ollamaChoice(object{"role": "assistant", "content": "", "tool_calls": calls}, nil)))
	}
	if p.content != "" && p.channel != callChannel {
		delta := chatDelta(p, "reasoning")
		delta["role"] = "assistant"
		if p.channel != contentChannel {
			delta["content"] = ""
		}
		c := ollamaChoice(delta, nil)
		if j.logprobs >= 0 {
			c["logprobs"] = chatLogprobs(j, p.chosen)
		}
		events = append(events, d.event(j, c))
	}
	if p.finish != "" {
		events = append(events, d.event(j, ollamaChoice(object{"role": "assistant", "content": ""}, p.finish)))
	}
	return events
}

func ollamaChoice(delta object, finish any) object {
	return object{"index": 0, "delta": delta, "finish_reason": finish}
}

func (ollama) event(j *job, choices ...object) object {
	e := event(j, choices...)
	e["system_fingerprint"] = "fp_ollama"
	return e
}

func (d ollama) tail(j *job, used usage) []object {
	if !j.wantsUsage() {
		return nil
	}
	e := d.event(j)
	e["usage"] = usageObject(used)
	return []object{e}
}

func (ollama) whole(j *job, texts []wholeText, used usage) object {
	w := whole(j, texts, "reasoning")
	w["system_fingerprint"], w["usage"] = "fp_ollama", usageObject(used)
	return w
}

func (ollama) routes(s *Server, mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Ollama is running")) })
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, object{"version": s.about().Version})
	})
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, object{"models": []object{ollamaModel(s.about())}})
	})
	mux.HandleFunc("GET /api/ps", func(w http.ResponseWriter, _ *http.Request) {
		o := s.about()
		models := []object{}
		if !o.Loading {
			model := ollamaModel(o)
			model["size_vram"], model["context_length"], model["expires_at"] = 0, o.ContextLength, time.Now().Add(5*time.Minute)
			models = append(models, model)
		}
		answerJSON(w, http.StatusOK, object{"models": models})
	})
	mux.HandleFunc("POST /api/show", func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ Model, Name string }
		o := s.about()
		if err := json.Unmarshal(rawBody(r), &asked); err != nil || asked.Model+asked.Name != o.Model {
			answerJSON(w, http.StatusNotFound, object{"error": "model '" + asked.Model + asked.Name + "' not found"})
			return
		}
		answerJSON(w, http.StatusOK, object{
			"template": "scripted", "details": ollamaModel(o)["details"], "capabilities": []string{"completion", "tools", "thinking"},
			"model_info":  object{"general.architecture": "parrot", "parrot.context_length": o.ContextLength},
			"modified_at": "2026-10-01T00:00:00Z",
		})
	})
}

// ollamaModel is how lists describe the model.
func ollamaModel(o Options) object {
	return object{
		"name": o.Model, "model": o.Model, "modified_at": "2026-10-01T00:00:00Z", "size": 1_100_000_000, "digest": o.Fingerprint,
		"details": object{"format": "gguf", "family": "parrot", "families": []string{"parrot"}, "parameter_size": "1B", "quantization_level": "Q8_0"},
	}
}
