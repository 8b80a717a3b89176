package servertest

import (
	"fmt"
	"net/http"
	"strconv"
)

// vllm is vLLM's server. It puts each token out as soon as there is one, with or without text; finish, stop reason and the last token
// come in one event.
type vllm struct{ openAI }

func (vllm) defaults(o *Options) {
	if o.Model == "" {
		o.Model = "test-org/parrot-1b"
	}
	if o.Version == "" {
		o.Version = "0.32.0"
	}
	if o.Fingerprint == "" {
		o.Fingerprint = "vllm-" + o.Version + "-" + fingerprint(o.Weights)
	}
	o.Ping = -1
}

func (vllm) models(o Options) object {
	return object{"object": "list", "data": []object{{
		"id": o.Model, "object": "model", "created": 1760000000, "owned_by": "vllm", "root": o.Model, "parent": nil,
		"max_model_len": o.ContextLength, "permission": []object{},
	}}}
}

func (vllm) open(path string) bool { return len(path) < 4 || path[:4] != "/v1/" }

func (vllm) newID(f form, r *random) string {
	if f == chatForm {
		return "chatcmpl-" + r.text(32, hexadecimal)
	}
	return "cmpl-" + r.text(32, hexadecimal)
}

func (vllm) newCallID(r *random) string { return "chatcmpl-tool-" + r.text(32, hexadecimal) }

func (vllm) prefills(b *body) bool { return b.goesOn() }

func (vllm) check(s *Server, j *job) *failure {
	b := j.body
	if j.form == completionForm && j.limit < 0 {
		j.limit = usualLimit
	}
	switch {
	case b.Model != "" && b.Model != s.options.Model:
		return unknownModel(b.Model)
	case j.limit == 0:
		return badRequest("max_tokens must be at least 1, got 0.")
	case b.goesOn() && (b.AddGenerationPrompt == nil || *b.AddGenerationPrompt):
		return badRequest("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
	case b.PromptLogprobs != nil && b.Stream:
		return badRequest("`prompt_logprobs` are not available when `stream=True`.")
	default:
		return nil
	}
}

func (vllm) failure(f *failure) any {
	if f.status == http.StatusUnauthorized {
		return object{"error": "Unauthorized"}
	}
	kind, message := vllmType(f.status), f.message
	if f.limit > 0 {
		message = contextMessage(f)
	}
	return object{"error": object{"message": message, "type": kind, "param": orNull(f.param), "code": f.status}}
}

// contextMessage is what vLLM and OpenAI say of a prompt that is too long.
func contextMessage(f *failure) string {
	return fmt.Sprintf("This model's maximum context length is %d tokens. However, your request has %d input tokens. "+
		"Please reduce the length of the input messages.", f.limit, f.prompt)
}

func vllmType(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "BadRequestError"
	case http.StatusNotFound:
		return "NotFoundError"
	case http.StatusTooManyRequests:
		return "RateLimitError"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailableError"
	default:
		return "InternalServerError"
	}
}

func (d vllm) streamFailure(f *failure) any { return d.failure(f) }

func (vllm) doneAfterFailure() bool { return true }

func (d vllm) idsOut(j *job) bool { return j.body.ReturnTokenIDs && !j.about.NoTokenIDs }

// withholds what a parser of reasoning or tool calls swallows.
func (d vllm) withholds(j *job, p *piece) bool {
	return j.form == chatForm && p.empty() && p.channel != contentChannel && !d.idsOut(j)
}

func (d vllm) head(j *job, text int) []object {
	if j.form != chatForm {
		return nil
	}
	e := event(j, chatChoice(text, object{"role": "assistant", "content": ""}))
	e["prompt_token_ids"] = nil
	if d.idsOut(j) {
		e["prompt_token_ids"] = j.promptOf(text)
	}
	return []object{e}
}

func (d vllm) events(j *job, p *piece) []object {
	var c object
	if j.form == chatForm {
		c = chatChoice(p.text, chatDelta(p, "reasoning"))
		c["logprobs"] = logprobsOf(j, p.text, p.chosen)
		if p.channel == callChannel && p.content == "" && p.name == "" {
			c["delta"] = object{}
		}
	} else {
		c = completionChoice(j, p)
		c["prompt_token_ids"] = nil
		if d.idsOut(j) {
			c["prompt_token_ids"] = j.promptOnce(p.text)
		}
	}
	c["finish_reason"], c["token_ids"] = orNull(p.finish), nil
	if p.finish != "" || j.form == completionForm {
		c["stop_reason"] = orNull(p.stop)
	}
	if d.idsOut(j) {
		c["token_ids"] = p.ids()
	}
	e := event(j, c)
	if p.finish != "" && !j.wantsUsage() {
		e["system_fingerprint"] = j.about.Fingerprint
	}
	return []object{e}
}

func (vllm) tail(j *job, used usage) []object {
	if !j.wantsUsage() {
		return nil
	}
	e := event(j)
	e["usage"], e["system_fingerprint"] = usageObject(used), j.about.Fingerprint
	return []object{e}
}

func (d vllm) whole(j *job, texts []wholeText, used usage) object {
	w := whole(j, texts, "reasoning")
	for i, c := range w["choices"].([]object) {
		c["stop_reason"] = orNull(texts[i].stop)
		if d.idsOut(j) {
			c["token_ids"] = texts[i].ids()
			if j.form == completionForm {
				c["prompt_token_ids"] = j.promptOf(i)
			}
		}
		if j.form == completionForm && j.body.PromptLogprobs != nil {
			c["prompt_logprobs"] = promptLogprobs(j, i)
		}
	}
	if j.form == chatForm && j.body.PromptLogprobs != nil {
		w["prompt_logprobs"] = promptLogprobs(j, 0)
	}
	if d.idsOut(j) && j.form == chatForm {
		w["prompt_token_ids"] = j.promptOf(0)
	}
	w["usage"], w["system_fingerprint"] = usageObject(used), j.about.Fingerprint
	return w
}

// promptLogprobs are those of the tokens of a prompt: nothing for the first one, and for each other one the token itself and the
// likeliest, by their ids.
func promptLogprobs(j *job, text int) []any {
	prompt := j.promptOf(text)
	list := make([]any, 0, len(prompt))
	eachRank(j.about, prompt, func(token int, candidates []int) {
		if candidates == nil {
			list = append(list, nil)
			return
		}
		entry := object{}
		for _, other := range append([]int{token}, candidates[:min(*j.body.PromptLogprobs, len(candidates))]...) {
			rank, logprob := rankOf(other, candidates)
			entry[strconv.Itoa(other)] = object{"logprob": logprob, "rank": rank, "decoded_token": theVocabulary.text(other)}
		}
		list = append(list, entry)
	})
	return list
}

// eachRank goes through a prompt and says what the model would have taken in place of each token; nothing for the first.
func eachRank(o Options, prompt []int, say func(token int, candidates []int)) {
	s := newSequence(o.Weights, o.Length, nil, false)
	for i, token := range prompt {
		var candidates []int
		if i > 0 {
			candidates = s.candidates(0, false)
		}
		say(token, candidates)
		s.push(token)
	}
}

func (vllm) routes(s *Server, mux *http.ServeMux) {
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, object{"version": s.about().Version})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		running, waiting := s.load.now()
		label := fmt.Sprintf("{engine=\"0\",model_name=%q}", s.options.Model)
		answerMetrics(w, [][2]string{
			{"vllm:num_requests_running" + label, strconv.Itoa(running)},
			{"vllm:num_requests_waiting" + label, strconv.Itoa(waiting)},
			{"vllm:kv_cache_usage_perc" + label, s.cacheUse(running)},
			{"vllm:generation_tokens_total" + label, strconv.Itoa(s.Tokens())},
		})
	})
	mux.HandleFunc("POST /tokenize", s.vllmTokenize)
	mux.HandleFunc("POST /detokenize", s.detokenize("prompt"))
}
