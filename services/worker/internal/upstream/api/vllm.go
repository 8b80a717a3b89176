package api

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/connswap/connswap/shared/wire"
)

// vllm is vLLM's OpenAI-compatible server.
type vllm struct{ openAI }

func (v vllm) identify(ctx context.Context) (found, error) {
	version := struct {
		Version string `json:"version"`
	}{}
	if err := v.client.get(ctx, "/version", &version); err != nil {
		return found{}, err
	}
	list, err := v.models(ctx)
	if err != nil {
		return found{}, err
	}
	id := Identity{Kind: VLLM, Version: version.Version}
	for i, m := range list {
		said := ""
		if i < maxProbed {
			// It is on the last chunk of a text only.
			if said, err = v.client.saidFingerprint(ctx, v, m.ID); err != nil {
				return found{}, err
			}
		}
		id.Models = append(id.Models, Model{
			Name:        m.ID,
			Fingerprint: fingerprint(VLLM, m.ID, version.Version, m.Root, m.MaxModelLen, said),
			Context:     m.MaxModelLen,
		})
	}
	return found{
		identity: id,
		features: v.features(version.Version),
		answers:  append(v.answering(ctx, list, "embeddings", "rerank", "score"), "tokenize", "detokenize"),
	}, nil
}

// features: return_token_ids is there since 0.10.2.
func (v vllm) features(version string) Features {
	f := Features{Prompt: true, Likely: true, Text: map[string]bool{wire.APIChat: true, wire.APICompletions: true}}
	if since(version, 0, 10, 2) {
		f.IDs = map[string]bool{wire.APIChat: true, wire.APICompletions: true}
	}
	return f
}

// since reports whether a version is at least another one. One that cannot be read, such as that of a developer's build, is.
func since(version string, least ...int) bool {
	parts := strings.FieldsFunc(strings.TrimPrefix(version, "v"), func(r rune) bool { return r < '0' || r > '9' })
	for i, want := range least {
		if i >= len(parts) {
			return i == 0
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil || n > want {
			return true
		}
		if n < want {
			return false
		}
	}
	return true
}

func (v vllm) path(api string) string {
	if api == "score" {
		return "/score"
	}
	return v.openAI.path(api)
}

func (v vllm) health(ctx context.Context) (Health, error) { return v.healthAt(ctx, "/health") }

func (v vllm) load(ctx context.Context) (Load, error) {
	return v.client.metrics(ctx, gauges{
		running: "vllm:num_requests_running",
		waiting: "vllm:num_requests_waiting",
		cache:   []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"},
	})
}

func (v vllm) request(call Call) (req request, err error) {
	if call.IDs != nil {
		req, err = idsRequest(call)
	} else {
		req, err = textRequest(call, continuing{flags: true})
	}
	if err != nil {
		return request{}, err
	}
	req.body.setBool("return_token_ids", true)
	req.early = true
	return req, nil
}

func (v vllm) warming(call Call) (request, error) { return warmed(v.request(call)) }

// chatFields are what /tokenize takes of a chat.
var chatFields = []string{
	"messages", "tools", "add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template",
	"chat_template_kwargs", "mm_processor_kwargs",
}

func (v vllm) tokenize(ctx context.Context, call Call) ([]uint32, error) {
	ask := newBody()
	ask.setString("model", call.Model)
	if isChat(call) {
		b, err := parseBody(call.Body)
		if err != nil {
			return nil, err
		}
		for _, name := range chatFields {
			if value := b.get(name); value.Exists() {
				ask.setRaw(name, value.Raw)
			}
		}
	} else {
		text, ids, err := promptOf(call)
		if err != nil || ids != nil {
			return ids, err
		}
		ask.setString("prompt", text)
	}
	return v.tokens(ctx, ask)
}

// tokens asks /tokenize, as vLLM and SGLang have it.
func (o openAI) tokens(ctx context.Context, ask *body) ([]uint32, error) {
	into := struct {
		Tokens []uint32 `json:"tokens"`
	}{}
	err := o.client.exchange(ctx, message{path: "/tokenize", body: ask.bytes()}, &into)
	return into.Tokens, err
}

// likely reads the log probabilities of a prompt: that of each token, with its rank, after those before it.
func (v vllm) likely(ctx context.Context, model string, ids []uint32, from int) (bool, error) {
	type logprob struct {
		Logprob float64 `json:"logprob"`
		Rank    int     `json:"rank"`
	}
	into := struct {
		Choices []struct {
			PromptLogprobs []map[string]logprob `json:"prompt_logprobs"`
		} `json:"choices"`
	}{}
	ask := newBody()
	ask.setString("model", model)
	ask.setIDs("prompt", ids)
	ask.setInt("max_tokens", 1)
	ask.setInt("temperature", 0)
	ask.setInt("prompt_logprobs", 1)
	m := message{path: pathCompletions, body: ask.bytes(), head: longer(v.client.timeouts.Headers, v.client.timeouts.First)}
	if err := v.client.exchange(ctx, m, &into); err != nil {
		return false, err
	}
	if len(into.Choices) == 0 || len(into.Choices[0].PromptLogprobs) != len(ids) {
		return false, errors.ErrUnsupported
	}
	for i := from; i < len(ids); i++ {
		said, ok := into.Choices[0].PromptLogprobs[i][strconv.FormatUint(uint64(ids[i]), 10)]
		if !ok {
			return false, errors.ErrUnsupported
		}
		if said.Rank != 1 {
			return false, nil
		}
	}
	return true, nil
}
