package servertest

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// sglang is SGLang's server. Its errors are flat objects, every field of an event is there even if it is null, and it takes any name for
// a model.
type sglang struct{ openAI }

func (sglang) defaults(o *Options) {
	if o.Model == "" {
		o.Model = "test-org/parrot-1b"
	}
	if o.Version == "" {
		o.Version = "0.5.14"
	}
	o.Ping = -1
}

func (sglang) models(o Options) object {
	return object{"object": "list", "data": []object{{
		"id": o.Model, "object": "model", "created": 1760000000, "owned_by": "sglang", "root": o.Model, "parent": nil,
		"max_model_len": o.ContextLength,
	}}}
}

func (sglang) open(path string) bool {
	return path == "/health" || path == "/health_generate" || path == "/metrics"
}

func (sglang) newID(_ form, r *random) string { return r.text(32, hexadecimal) }

func (sglang) newCallID(r *random) string { return "call_" + r.text(24, hexadecimal) }

func (sglang) prefills(b *body) bool { return b.goesOn() }

func (sglang) check(_ *Server, j *job) *failure {
	if j.form == completionForm && j.limit < 0 {
		j.limit = usualLimit
	}
	if j.form == nativeForm && j.limit < 0 {
		j.limit = 128
	}
	if j.limit == 0 {
		return badRequest("max_new_tokens must be at least 1, got 0.")
	}
	return nil
}

func (sglang) flat(f *failure) object {
	kind, message := vllmType(f.status), f.message
	if f.limit > 0 {
		message = fmt.Sprintf("The input (%d tokens) is longer than the model's context length (%d tokens).", f.prompt, f.limit)
	}
	return object{"object": "error", "message": message, "type": kind, "param": orNull(f.param), "code": f.status}
}

func (d sglang) failure(f *failure) any {
	if f.status == http.StatusUnauthorized {
		return object{"error": "Unauthorized"}
	}
	return d.flat(f)
}

func (d sglang) streamFailure(f *failure) any { return object{"error": d.flat(f)} }

func (sglang) doneAfterFailure() bool { return true }

// idsOut says whether ids are given out: with completions, and with chats that are no streams.
func (sglang) idsOut(j *job) bool {
	return j.body.ReturnTokenIDs && !j.about.NoTokenIDs && (j.form == completionForm || !j.body.Stream)
}

func (sglang) withholds(j *job, p *piece) bool { return j.form == chatForm && p.empty() }

func (d sglang) head(j *job, text int) []object {
	if j.form != chatForm {
		return nil
	}
	return []object{d.event(j, d.choice(text, object{"role": "assistant", "content": ""}))}
}

func (sglang) event(j *job, choices ...object) object {
	e := event(j, choices...)
	e["usage"] = nil
	return e
}

// choice is a choice of a chat with all its fields.
func (sglang) choice(text int, delta object) object {
	for _, field := range []string{"role", "content", "reasoning_content", "tool_calls"} {
		if _, there := delta[field]; !there {
			delta[field] = nil
		}
	}
	c := chatChoice(text, delta)
	c["matched_stop"] = nil
	return c
}

func (d sglang) events(j *job, p *piece) []object {
	switch j.form {
	case nativeForm:
		return d.nativeEvents(j, p)
	case completionForm:
		c := completionChoice(j, p)
		c["matched_stop"], c["token_ids"], c["prompt_token_ids"] = matchedStop(p), nil, nil
		if d.idsOut(j) {
			c["token_ids"], c["prompt_token_ids"] = p.ids(), j.promptOnce(p.text)
		}
		return []object{d.event(j, c)}
	case chatForm:
		j.native.add(p) // for its ids, at the end
	}
	var events []object
	if p.content != "" || p.name != "" {
		c := d.choice(p.text, chatDelta(p, "reasoning_content"))
		c["logprobs"] = logprobsOf(j, p.text, p.chosen)
		events = append(events, d.event(j, c))
	}
	if p.finish != "" {
		c := d.choice(p.text, object{})
		c["finish_reason"], c["matched_stop"] = p.finish, matchedStop(p)
		events = append(events, d.event(j, c))
	}
	return events
}

// matchedStop is what a text ended with: a stop string, or the token for the end.
func matchedStop(p *piece) any {
	switch {
	case p.stop != "":
		return p.stop
	case p.finish == "stop" || p.finish == "tool_calls":
		return tokenEnd
	default:
		return nil
	}
}

// nativeEvents are those of /generate: all of the text so far in each.
func (sglang) nativeEvents(j *job, p *piece) []object {
	t := &j.native
	t.add(p)
	return []object{nativeAnswer(j, t)}
}

func nativeAnswer(j *job, t *wholeText) object {
	meta := object{"id": j.id, "prompt_tokens": j.promptTokens(), "completion_tokens": len(t.chosen), "weight_version": "default", "finish_reason": nil}
	switch t.finish {
	case "":
	case "length":
		meta["finish_reason"] = object{"type": "length", "length": j.limit}
	case "abort":
		meta["finish_reason"] = object{"type": "abort", "message": "Abort in waiting queue", "status_code": nil}
	default:
		meta["finish_reason"] = object{"type": t.finish, "matched": tokenEnd}
	}
	if j.body.ReturnLogprob {
		logprobs := [][3]any{}
		for _, c := range t.chosen {
			logprobs = append(logprobs, [3]any{c.logprob, c.token, nil})
		}
		meta["output_token_logprobs"], meta["input_token_logprobs"] = logprobs, inputLogprobs(j)
	}
	return object{"text": t.content, "output_ids": t.ids(), "meta_info": meta}
}

// inputLogprobs are those of the prompt from logprob_start_len on.
func inputLogprobs(j *job) [][3]any {
	start := len(j.prompts[0])
	if j.body.LogprobStart != nil {
		start = max(0, *j.body.LogprobStart)
	}
	list, place := [][3]any{}, 0
	eachRank(j.about, j.prompts[0], func(token int, candidates []int) {
		if place >= start {
			_, logprob := rankOf(token, candidates)
			one := [3]any{logprob, token, nil}
			if candidates == nil {
				one[0] = nil
			}
			list = append(list, one)
		}
		place++
	})
	return list
}

func (d sglang) tail(j *job, used usage) []object {
	var events []object
	if ext := sglangExt(j, &j.native); ext != nil && j.form == chatForm {
		e := d.event(j)
		e["sglext"] = ext
		events = append(events, e)
	}
	if j.wantsUsage() && j.form != nativeForm {
		e := d.event(j)
		e["usage"] = sglangUsage(used)
		events = append(events, e)
	}
	return events
}

// sglangExt is what SGLang gives beside the OpenAI API, all at once: here the ids of a chat; nil if nobody has asked.
func sglangExt(j *job, t *wholeText) object {
	if j.about.NoTokenIDs || !j.body.InputIDsInExt && !j.body.OutputIDsInExt {
		return nil
	}
	ext := object{}
	if j.body.InputIDsInExt {
		ext["input_ids"] = j.prompts[0]
	}
	if j.body.OutputIDsInExt {
		ext["output_ids"] = t.ids()
	}
	return ext
}

func sglangUsage(used usage) object {
	u := usageObject(used)
	u["prompt_tokens_details"], u["reasoning_tokens"] = nil, used.reasoning
	return u
}

func (d sglang) whole(j *job, texts []wholeText, used usage) object {
	if j.form == nativeForm {
		return nativeAnswer(j, &texts[0])
	}
	w := whole(j, texts, "reasoning_content")
	for i, c := range w["choices"].([]object) {
		c["matched_stop"] = matchedStop(&piece{finish: texts[i].finish, stop: texts[i].stop})
		if d.idsOut(j) {
			c["token_ids"], c["prompt_token_ids"] = texts[i].ids(), j.promptOf(i)
		}
		if j.body.ReturnPromptTokenIDs && !j.about.NoTokenIDs {
			c["prompt_token_ids"] = j.promptOf(i)
		}
	}
	if ext := sglangExt(j, &texts[0]); ext != nil {
		w["sglext"] = ext
	}
	w["usage"], w["metadata"] = sglangUsage(used), object{"weight_version": "default"}
	return w
}

func (sglang) routes(s *Server, mux *http.ServeMux) {
	mux.HandleFunc("POST /generate", s.text(nativeForm))
	healthy := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	mux.HandleFunc("GET /health", healthy)
	mux.HandleFunc("GET /health_generate", func(w http.ResponseWriter, r *http.Request) {
		j := &job{form: nativeForm, body: &body{}, prompts: [][]int{{tokenBegin}}, texts: 1, limit: 1, logprobs: -1}
		wait := func(d time.Duration) error { return s.sleep(r.Context(), d) }
		if _, err := s.generate(r.Context(), j, wait, func(piece) error { return nil }); err == nil {
			healthy(w, r)
		}
	})
	for _, path := range []string{"POST /tokenize", "POST /v1/tokenize"} {
		mux.HandleFunc(path, s.sglangTokenize)
	}
	for _, path := range []string{"POST /detokenize", "POST /v1/detokenize"} {
		mux.HandleFunc(path, s.detokenize("text"))
	}
	for _, path := range []string{"GET /get_server_info", "GET /server_info"} {
		mux.HandleFunc(path, s.sglangInfo)
	}
	for _, path := range []string{"GET /get_model_info", "GET /model_info"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			o := s.about()
			answerJSON(w, http.StatusOK, object{
				"model_path": o.Model, "tokenizer_path": o.Model, "is_generation": true, "preferred_sampling_params": nil,
				"weight_version": o.Fingerprint,
			})
		})
	}
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		running, waiting := s.load.now()
		label := fmt.Sprintf("{model_name=%q}", s.options.Model)
		answerMetrics(w, [][2]string{
			{"sglang:num_running_reqs" + label, strconv.Itoa(running)},
			{"sglang:num_queue_reqs" + label, strconv.Itoa(waiting)},
			{"sglang:token_usage" + label, s.cacheUse(running)},
		})
	})
}

// sglangInfo answers with what the server was started with.
func (s *Server) sglangInfo(w http.ResponseWriter, _ *http.Request) {
	o := s.about()
	answerJSON(w, http.StatusOK, object{
		"version": o.Version, "model_path": o.Model, "served_model_name": o.Model, "tp_size": 1, "attention_backend": "fa3",
		"enable_deterministic_inference": o.Sampler == PositionKeyed && !o.BatchDependent, "random_seed": 42, "dtype": "auto",
		"quantization": nil, "context_length": o.ContextLength, "weight_version": o.Fingerprint, "max_total_num_tokens": 1 << 18,
		"internal_states": []object{},
	})
}
