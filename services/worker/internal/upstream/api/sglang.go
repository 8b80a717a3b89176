package api

import (
	"context"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/connswap/connswap/shared/wire"
)

// sglang is SGLang's server.
type sglang struct{ openAI }

// sglangFlags are what of a server's arguments changes the text that it makes. Ports, host names, seeds, times and paths of logs differ
// between equal servers, and are not among them.
var sglangFlags = []string{
	"version", "model_path", "tokenizer_path", "revision", "weight_version", "dtype", "quantization", "kv_cache_dtype", "load_format",
	"context_length", "json_model_override_args", "chat_template", "reasoning_parser", "tool_call_parser",
	"tp_size", "pp_size", "dp_size", "ep_size", "enable_dp_attention", "attention_backend", "prefill_attention_backend",
	"decode_attention_backend", "sampling_backend", "grammar_backend", "moe_runner_backend", "fp8_gemm_runner_backend",
	"enable_deterministic_inference", "disable_radix_cache", "chunked_prefill_size", "disable_cuda_graph", "enable_torch_compile",
	"speculative_algorithm", "speculative_draft_model_path", "speculative_num_steps", "speculative_eagle_topk",
	"speculative_num_draft_tokens", "preferred_sampling_params", "sampling_defaults", "lora_paths",
}

// first returns what the first of these end points answers that there is: newer versions have other names.
func (g sglang) first(ctx context.Context, paths ...string) (gjson.Result, error) {
	for _, path := range paths {
		said, err := g.client.ask(ctx, path)
		if err != nil || said.IsObject() {
			return said, err
		}
	}
	return gjson.Result{}, nil
}

func (g sglang) identify(ctx context.Context) (found, error) {
	info, err := g.first(ctx, "/server_info", "/get_server_info")
	if err != nil {
		return found{}, err
	}
	weights, err := g.first(ctx, "/model_info", "/get_model_info")
	if err != nil {
		return found{}, err
	}
	list, err := g.models(ctx)
	if err != nil {
		return found{}, err
	}
	parts := []any{weights.Get("model_path").String(), weights.Get("weight_version").String()}
	for _, name := range sglangFlags {
		parts = append(parts, name, info.Get(name).Raw)
	}
	id := Identity{Kind: SGLang, Version: info.Get("version").String()}
	for _, m := range list {
		id.Models = append(id.Models, Model{
			Name:        m.ID,
			Fingerprint: fingerprint(SGLang, m.ID, append(parts, m.Root)...),
			Context:     m.MaxModelLen,
		})
	}
	return found{
		identity: id,
		features: g.features(),
		answers:  append(g.answering(ctx, list, "embeddings", "rerank"), "tokenize", "detokenize"),
	}, nil
}

// features: a stream of a chat tells no ids.
func (g sglang) features() Features {
	return Features{
		IDs:    map[string]bool{wire.APICompletions: true},
		Prompt: true,
		Likely: true,
		Text:   map[string]bool{wire.APIChat: true, wire.APICompletions: true},
	}
}

func (g sglang) health(ctx context.Context) (Health, error) { return g.healthAt(ctx, "/health") }

func (g sglang) load(ctx context.Context) (Load, error) {
	return g.client.metrics(ctx, gauges{
		running: "sglang:num_running_reqs",
		waiting: "sglang:num_queue_reqs",
		cache:   []string{"sglang:token_usage"},
	})
}

func (g sglang) request(call Call) (req request, err error) {
	if call.IDs != nil {
		req, err = idsRequest(call)
	} else {
		req, err = textRequest(call, continuing{flags: true})
	}
	if err != nil {
		return request{}, err
	}
	if req.path == pathCompletions {
		req.body.setBool("return_token_ids", true)
	} else {
		// A chat that is streamed is refused with these, and the caller may not have asked for a stream.
		req.body.remove("return_token_ids", "return_prompt_token_ids")
	}
	return req, nil
}

func (g sglang) warming(call Call) (request, error) { return warmed(g.request(call)) }

func (g sglang) tokenize(ctx context.Context, call Call) ([]uint32, error) {
	if isChat(call) {
		return nil, errors.ErrUnsupported
	}
	text, ids, err := promptOf(call)
	if err != nil || ids != nil {
		return ids, err
	}
	ask := newBody()
	ask.setString("model", call.Model)
	ask.setString("prompt", text)
	return g.tokens(ctx, ask)
}

// likely asks /generate for the log probabilities of a prompt. input_token_logprobs has [log probability, id, text] of each token from
// logprob_start_len on, of which the first has none, and input_top_logprobs a list of such for each.
func (g sglang) likely(ctx context.Context, _ string, ids []uint32, from int) (bool, error) {
	ask := newBody()
	ask.setIDs("input_ids", ids)
	ask.setRaw("sampling_params", `{"temperature":0,"max_new_tokens":1}`)
	ask.setBool("return_logprob", true)
	ask.setInt("logprob_start_len", from-1)
	ask.setInt("top_logprobs_num", 1)
	m := message{path: "/generate", body: ask.bytes(), head: longer(g.client.timeouts.Headers, g.client.timeouts.First)}
	doc, err := g.client.document(ctx, m)
	if err != nil {
		return false, err
	}
	if err := errorIn(doc); err != nil {
		return false, err
	}
	meta := gjson.GetBytes(doc, "meta_info")
	tokens, tops := meta.Get("input_token_logprobs").Array(), meta.Get("input_top_logprobs").Array()
	if len(tokens) != len(ids)-from+1 || len(tops) != len(tokens) {
		return false, errors.ErrUnsupported
	}
	for i, id := range ids[from:] {
		if tokens[i+1].Get("1").Uint() != uint64(id) || !tops[i+1].Get("0.1").Exists() {
			return false, errors.ErrUnsupported
		}
		if tops[i+1].Get("0.1").Uint() != uint64(id) && tops[i+1].Get("0.0").Float() > tokens[i+1].Get("0").Float() {
			return false, nil
		}
	}
	return true, nil
}
