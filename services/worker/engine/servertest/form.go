package servertest

import (
	"fmt"
	"hash/fnv"
)

// fingerprint is a short hash of what makes a server's texts.
func fingerprint(parts ...string) string {
	h := fnv.New64a()
	for _, part := range parts {
		_, _ = h.Write([]byte(part + "\x00")) // never fails
	}
	return fmt.Sprintf("fp_%010x", h.Sum64()>>24)
}

// event is what all events of a stream in the OpenAI API have.
func event(j *job, choices ...object) object {
	name := "chat.completion.chunk"
	if j.form == completionForm {
		name = "text_completion"
	}
	if choices == nil {
		choices = []object{}
	}
	return object{"id": j.id, "object": name, "created": j.created, "model": j.model, "choices": choices}
}

// chatChoice is a choice in an event of a chat.
func chatChoice(text int, delta object) object {
	return object{"index": text, "delta": delta, "logprobs": nil, "finish_reason": nil}
}

// chatDelta is what a piece adds to a message; reasoning is the name of the field for that.
func chatDelta(p *piece, reasoning string) object {
	switch p.channel {
	case reasoningChannel:
		return object{reasoning: p.content}
	case refusalChannel:
		return object{"refusal": p.content}
	case callChannel:
		function := object{"arguments": p.content}
		call := object{"index": p.call, "function": function}
		if p.name != "" {
			function["name"], call["id"], call["type"] = p.name, p.callID, "function"
		}
		return object{"tool_calls": []object{call}}
	case contentChannel:
	}
	return object{"content": p.content}
}

// chatMessage is a whole message.
func chatMessage(t *wholeText, reasoning string) object {
	m := object{"role": "assistant", "content": t.content}
	if t.reasoning != "" {
		m[reasoning] = t.reasoning
	}
	if t.refusal != "" {
		m["refusal"], m["content"] = t.refusal, nil
	}
	var calls []object
	for _, call := range t.calls {
		calls = append(calls, object{
			"id": call.id, "type": "function", "function": object{"name": call.name, "arguments": call.arguments},
		})
	}
	if calls != nil {
		m["tool_calls"] = calls
		if t.content == "" {
			m["content"] = nil
		}
	}
	return m
}

// usageObject is what a request took, in the words of the OpenAI API.
func usageObject(used usage) object {
	return object{
		"prompt_tokens": used.prompt, "completion_tokens": used.completion, "total_tokens": used.prompt + used.completion,
	}
}

// logprobsOf are the logprobs of tokens in the form that the request has; nil if it wants none.
func logprobsOf(j *job, text int, chosen []choice) any {
	if j.logprobs < 0 {
		return nil
	}
	if j.form == chatForm {
		return chatLogprobs(j, chosen)
	}
	return completionLogprobs(j, text, chosen)
}

func chatLogprobs(j *job, chosen []choice) object {
	content := []object{}
	for _, c := range chosen {
		if theVocabulary.visible(c.token) == "" {
			continue
		}
		one := tokenLogprob(c.token, c.logprob)
		top := []object{}
		for _, other := range c.top[:min(j.logprobs, len(c.top))] {
			top = append(top, tokenLogprob(other.token, other.logprob))
		}
		one["top_logprobs"] = top
		content = append(content, one)
	}
	return object{"content": content}
}

func tokenLogprob(token int, logprob float64) object {
	text := theVocabulary.text(token)
	bytes := make([]int, len(text))
	for i := range len(text) {
		bytes[i] = int(text[i])
	}
	return object{"token": text, "logprob": logprob, "bytes": bytes}
}

func completionLogprobs(j *job, text int, chosen []choice) object {
	tokens, logprobs, tops, offsets := []string{}, []float64{}, []object{}, []int{}
	for _, c := range chosen {
		shown := theVocabulary.visible(c.token)
		tokens, logprobs, offsets = append(tokens, shown), append(logprobs, c.logprob), append(offsets, j.offsets[text])
		j.offsets[text] += len(shown)
		top := object{}
		for _, other := range c.top[:min(j.logprobs, len(c.top))] {
			top[theVocabulary.text(other.token)] = other.logprob
		}
		tops = append(tops, top)
	}
	return object{"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}
}
