package servertest

import (
	"net/http"
	"strings"
)

// openAI is a plain server of the OpenAI API, with nothing beside it.
type openAI struct{}

func (openAI) defaults(o *Options) {
	if o.Model == "" {
		o.Model = "gpt-test-1"
	}
	if o.Version == "" {
		o.Version = "2026-10-01"
	}
	o.Ping = -1
}

func (openAI) routes(*Server, *http.ServeMux) {}

func (openAI) models(o Options) object {
	return object{"object": "list", "data": []object{{"id": o.Model, "object": "model", "created": 1760000000, "owned_by": "openai"}}}
}

func (openAI) open(string) bool { return false }

func (openAI) servesLoading(string) bool { return false }

func (openAI) newID(f form, r *random) string {
	if f == chatForm {
		return "chatcmpl-" + r.text(29, alphanumeric)
	}
	return "cmpl-" + r.text(29, alphanumeric)
}

func (openAI) newCallID(r *random) string { return "call_" + r.text(24, alphanumeric) }

// usualLimit is what the OpenAI API gives completions that do not say how long.
const usualLimit = 16

func (openAI) check(s *Server, j *job) *failure {
	if j.form == completionForm && j.limit < 0 {
		j.limit = usualLimit
	}
	switch {
	case j.body.Model == "":
		return badRequest("you must provide a model parameter")
	case j.body.Model != s.options.Model:
		return unknownModel(j.body.Model)
	case j.limit == 0:
		return badRequest("max_tokens must be at least 1")
	default:
		return nil
	}
}

func (openAI) prefills(*body) bool { return false }

func (openAI) strict() bool { return true }

func (openAI) failure(f *failure) any {
	message := f.message
	if f.limit > 0 {
		message = contextMessage(f)
	}
	return object{"error": object{"message": message, "type": f.kind, "param": orNull(f.param), "code": orNull(f.code)}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (d openAI) streamFailure(f *failure) any { return d.failure(f) }

func (openAI) doneAfterFailure() bool { return false }

func (openAI) lastWords(*job) object { return nil }

func (openAI) withholds(_ *job, p *piece) bool { return p.empty() }

func (d openAI) head(j *job, text int) []object {
	if j.form != chatForm {
		return nil
	}
	return []object{d.event(j, chatChoice(text, object{"role": "assistant", "content": "", "refusal": nil}))}
}

func (d openAI) events(j *job, p *piece) []object {
	if j.form == completionForm {
		return []object{d.event(j, completionChoice(j, p))}
	}
	var events []object
	if p.content != "" || p.name != "" {
		c := chatChoice(p.text, chatDelta(p, "reasoning_content"))
		c["logprobs"] = logprobsOf(j, p.text, p.chosen)
		events = append(events, d.event(j, c))
	}
	if p.finish != "" {
		c := chatChoice(p.text, object{})
		c["finish_reason"] = p.finish
		events = append(events, d.event(j, c))
	}
	return events
}

// event is one of a stream, with what OpenAI puts into each.
func (openAI) event(j *job, choices ...object) object {
	e := event(j, choices...)
	e["system_fingerprint"], e["service_tier"] = j.about.Fingerprint, "default"
	if j.wantsUsage() {
		e["usage"] = nil
	}
	if j.form == chatForm {
		e["obfuscation"] = strings.Repeat("x", 1+int(j.random.number()%12))
	}
	return e
}

// completionChoice is a choice in an event of a completion.
func completionChoice(j *job, p *piece) object {
	return object{
		"index": p.text, "text": p.content, "logprobs": logprobsOf(j, p.text, p.chosen), "finish_reason": orNull(p.finish),
	}
}

func (d openAI) tail(j *job, used usage) []object {
	if !j.wantsUsage() {
		return nil
	}
	e := d.event(j)
	e["usage"] = detailedUsage(used)
	return []object{e}
}

func detailedUsage(used usage) object {
	u := usageObject(used)
	u["prompt_tokens_details"] = object{"cached_tokens": 0}
	u["completion_tokens_details"] = object{"reasoning_tokens": used.reasoning}
	return u
}

func (openAI) done(*job) bool { return true }

func (openAI) whole(j *job, texts []wholeText, used usage) object {
	w := whole(j, texts, "reasoning_content")
	w["system_fingerprint"], w["usage"] = j.about.Fingerprint, detailedUsage(used)
	return w
}

// whole is an answer that is no stream.
func whole(j *job, texts []wholeText, reasoning string) object {
	choices := make([]object, len(texts))
	for i := range texts {
		t := &texts[i]
		choices[i] = object{"index": i, "logprobs": logprobsOf(j, i, t.chosen), "finish_reason": orNull(t.finish)}
		if j.form == chatForm {
			choices[i]["message"] = chatMessage(t, reasoning)
		} else {
			choices[i]["text"] = t.content
		}
	}
	w := event(j, choices...)
	if j.form == chatForm {
		w["object"] = "chat.completion"
	}
	return w
}
