package servertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// llamaCPP is llama.cpp's server. A character of several tokens is put out with its last token, and then only that token's id is given; its
// own form, /completion, has no [DONE].
type llamaCPP struct{ openAI }

func (llamaCPP) defaults(o *Options) {
	if o.Model == "" {
		o.Model = "/models/parrot-1b-q8_0.gguf"
	}
	if o.Version == "" {
		o.Version = "b9100-0123abcd"
	}
	if o.Fingerprint == "" {
		o.Fingerprint = o.Version // the build is all that it says
	}
	if o.Ping == 0 {
		o.Ping = time.Second
	}
}

func (llamaCPP) models(o Options) object {
	return object{"object": "list", "data": []object{{
		"id": o.Model, "object": "model", "created": 1760000000, "owned_by": "llamacpp",
		"meta": object{
			"vocab_type": 2, "n_vocab": theVocabulary.size(), "n_ctx_train": o.ContextLength, "n_embd": 512,
			"n_params": 1_000_000_000, "size": 1_100_000_000 + len(o.Weights),
		},
	}}}
}

func (llamaCPP) open(path string) bool {
	return path == "/health" || path == "/v1/health" || path == "/v1/models" || path == "/models"
}

func (llamaCPP) newID(_ form, r *random) string { return "chatcmpl-" + r.text(32, alphanumeric) }

func (llamaCPP) newCallID(r *random) string { return r.text(32, alphanumeric) }

func (llamaCPP) prefills(b *body) bool { return string(b.ContinueFinalMessage) != "false" }

func (llamaCPP) strict() bool { return false }

func (llamaCPP) check(*Server, *job) *failure { return nil }

func (llamaCPP) failure(f *failure) any {
	kind := f.kind
	switch f.status {
	case http.StatusUnauthorized:
		kind = "authentication_error"
	case http.StatusNotFound:
		kind = "not_found_error"
	}
	e := object{"code": f.status, "message": f.message, "type": kind}
	if f.limit > 0 {
		e["message"] = fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it", f.prompt, f.limit)
		e["type"], e["n_prompt_tokens"], e["n_ctx"] = "exceed_context_size_error", f.prompt, f.limit
	}
	return object{"error": e}
}

func (d llamaCPP) streamFailure(f *failure) any { return d.failure(f) }

// withholds parts of characters, and in the forms of the OpenAI API whatever there is nothing to see of.
func (llamaCPP) withholds(j *job, p *piece) bool {
	if j.form == chatForm {
		return p.empty()
	}
	return p.partial && p.finish == ""
}

func (d llamaCPP) head(j *job, text int) []object {
	if j.form != chatForm {
		return nil
	}
	return []object{d.event(j, llamaChoice(text, object{"role": "assistant", "content": nil}))}
}

func llamaChoice(text int, delta object) object {
	return object{"index": text, "delta": delta, "finish_reason": nil}
}

func (llamaCPP) event(j *job, choices ...object) object {
	e := event(j, choices...)
	e["system_fingerprint"] = j.about.Version
	return e
}

func (d llamaCPP) events(j *job, p *piece) []object {
	switch j.form {
	case nativeForm:
		return d.nativeEvents(j, p)
	case completionForm:
		return d.completionEvents(j, p)
	case chatForm:
	}
	var events []object
	if p.content != "" || p.name != "" {
		c := llamaChoice(p.text, chatDelta(p, "reasoning_content"))
		if j.logprobs >= 0 {
			c["logprobs"] = chatLogprobs(j, p.chosen)
		}
		events = append(events, d.event(j, c))
	}
	if p.finish != "" {
		c := llamaChoice(p.text, object{})
		c["finish_reason"] = p.finish
		events = append(events, d.event(j, c))
	}
	return events
}

func (d llamaCPP) completionEvents(j *job, p *piece) []object {
	part, last := *p, *p
	part.finish, last.content, last.chosen = "", "", nil
	var events []object
	if len(p.chosen) > 0 {
		events = append(events, d.event(j, completionChoice(j, &part)))
	}
	if p.finish != "" {
		e := d.event(j, completionChoice(j, &last))
		e["usage"] = usageObject(usage{prompt: j.promptTokens(), completion: j.madeIn(p)})
		return append(events, e)
	}
	j.madeIn(p)
	return events
}

// nativeEvents are those of /completion: a piece, and at the end one that sums up.
func (llamaCPP) nativeEvents(j *job, p *piece) []object {
	made := j.madeIn(p)
	var events []object
	if len(p.chosen) > 0 {
		ids := p.ids()
		e := object{
			"index": p.text, "content": p.content, "tokens": ids[len(ids)-1:], "stop": false, "id_slot": -1,
			"tokens_predicted": made, "tokens_evaluated": j.promptTokens(),
		}
		if j.about.NoTokenIDs {
			delete(e, "tokens")
		}
		events = append(events, e)
	}
	if p.finish != "" {
		events = append(events, llamaSummary(j, p.text, made, p.finish, p.stop))
	}
	return events
}

// llamaSummary is the end of an answer to /completion, without content.
func llamaSummary(j *job, text, made int, finish, stop string) object {
	kind := "eos"
	switch {
	case stop != "":
		kind = "word"
	case finish == "length":
		kind = "limit"
	}
	return object{
		"index": text, "content": "", "tokens": []int{}, "id_slot": 0, "stop": true, "model": j.model, "tokens_predicted": made,
		"tokens_evaluated": j.promptTokens(), "truncated": false, "stop_type": kind, "stopping_word": stop, "has_new_line": false,
		"tokens_cached": j.promptTokens() + made - 1, "timings": object{"prompt_n": j.promptTokens(), "predicted_n": made},
	}
}

func (d llamaCPP) tail(j *job, used usage) []object {
	if !j.wantsUsage() || j.form != chatForm {
		return nil
	}
	e := d.event(j)
	e["usage"], e["timings"] = usageObject(used), object{"prompt_n": used.prompt, "predicted_n": used.completion}
	return []object{e}
}

func (llamaCPP) done(j *job) bool { return j.form != nativeForm }

func (d llamaCPP) whole(j *job, texts []wholeText, used usage) object {
	if j.form == nativeForm {
		t := &texts[0]
		w := llamaSummary(j, 0, used.completion, t.finish, t.stop)
		w["content"] = t.content
		if j.body.ReturnTokens && !j.about.NoTokenIDs {
			w["tokens"] = t.ids()
		}
		return w
	}
	w := whole(j, texts, "reasoning_content")
	w["system_fingerprint"], w["usage"] = j.about.Version, usageObject(used)
	return w
}

func (llamaCPP) routes(s *Server, mux *http.ServeMux) {
	for _, path := range []string{"POST /completion", "POST /completions"} {
		mux.HandleFunc(path, s.text(nativeForm))
	}
	for _, path := range []string{"GET /health", "GET /v1/health"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, http.StatusOK, object{"status": "ok"}) })
	}
	mux.HandleFunc("GET /props", s.llamaProps)
	mux.HandleFunc("GET /slots", s.llamaSlots)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		running, waiting := s.load.now()
		answerMetrics(w, [][2]string{
			{"llamacpp:requests_processing", strconv.Itoa(running)},
			{"llamacpp:requests_deferred", strconv.Itoa(waiting)},
			{"llamacpp:tokens_predicted_total", strconv.Itoa(s.Tokens())},
		})
	})
	mux.HandleFunc("POST /tokenize", s.llamaTokenize)
	mux.HandleFunc("POST /detokenize", s.detokenize("content"))
	mux.HandleFunc("POST /apply-template", func(w http.ResponseWriter, r *http.Request) {
		b := &body{}
		if json.Unmarshal(rawBody(r), b) != nil || len(b.Messages) == 0 {
			s.refuse(w, badRequest("messages must be an array"))
			return
		}
		goOn := b.lastIsAssistant() && s.dialect.prefills(b) && !s.options.NoPrefill
		answerJSON(w, http.StatusOK, object{"prompt": render(b.Messages, b.tools(), goOn, !goOn)})
	})
}

// slots is how many requests llama.cpp generates for at once.
func (s *Server) slots() int {
	if s.options.Capacity > 0 {
		return s.options.Capacity
	}
	return 4
}

func (s *Server) llamaProps(w http.ResponseWriter, _ *http.Request) {
	o := s.about()
	answerJSON(w, http.StatusOK, object{
		"default_generation_settings": object{"n_ctx": o.ContextLength, "params": object{"temperature": 0.8, "top_k": 40, "top_p": 0.95}},
		"total_slots":                 s.slots(), "model_alias": o.Model, "model_path": o.Model, "build_info": o.Version,
		"modalities": object{"vision": false, "audio": false}, "chat_template": "scripted", "bos_token": "<|begin|>", "eos_token": "<|end|>",
	})
}

func (s *Server) llamaSlots(w http.ResponseWriter, r *http.Request) {
	running, _ := s.load.now()
	slots := make([]object, s.slots())
	for i := range slots {
		slots[i] = object{"id": i, "n_ctx": s.options.ContextLength, "is_processing": i < running}
	}
	if running >= len(slots) && r.URL.Query().Get("fail_on_no_slot") != "" {
		s.refuse(w, unavailable("no slot available"))
		return
	}
	answerJSON(w, http.StatusOK, slots)
}
