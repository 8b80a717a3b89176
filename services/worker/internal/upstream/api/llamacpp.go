package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

const pathNative = "/completion"

// llamaCPP is llama.cpp's llama-server. Its own API, /completion, takes and tells ids; a chat has none.
type llamaCPP struct{ openAI }

func (l llamaCPP) identify(ctx context.Context) (found, error) {
	props := struct {
		Build    string `json:"build_info"`
		Path     string `json:"model_path"`
		Template string `json:"chat_template"`
		Settings struct {
			Context int `json:"n_ctx"`
		} `json:"default_generation_settings"`
	}{}
	if err := l.client.get(ctx, "/props", &props); err != nil {
		return found{}, err
	}
	list, err := l.models(ctx)
	if err != nil {
		return found{}, err
	}
	id := Identity{Kind: LlamaCPP, Version: props.Build}
	for _, m := range list {
		id.Models = append(id.Models, Model{
			Name:        m.ID,
			Fingerprint: fingerprint(LlamaCPP, m.ID, props.Build, props.Path, props.Settings.Context, props.Template, m.Meta.Size),
			Context:     cmp.Or(props.Settings.Context, m.Meta.Train),
		})
	}
	return found{
		identity: id,
		features: l.features(),
		answers:  append(l.answering(ctx, l.path, list, "embeddings", "rerank"), "tokenize", "detokenize"),
	}, nil
}

func (l llamaCPP) features() Features {
	return Features{
		IDs:    map[string]bool{wire.APICompletions: true},
		Prompt: true,
		Text:   map[string]bool{wire.APIChat: true, wire.APICompletions: true},
	}
}

func (l llamaCPP) health(ctx context.Context) (Health, error) { return l.healthAt(ctx, "/health") }

// load reads the metrics where they are switched on, else the slots.
func (l llamaCPP) load(ctx context.Context) (Load, error) {
	load, err := l.client.metrics(ctx, gauges{
		running: "llamacpp:requests_processing",
		waiting: "llamacpp:requests_deferred",
		cache:   []string{"llamacpp:kv_cache_usage_ratio"},
	})
	if err != nil || load.Known {
		return load, err
	}
	slots, err := l.client.ask(ctx, "/slots")
	if err != nil || !slots.IsArray() {
		return Load{}, err
	}
	load.Known = true
	for _, slot := range slots.Array() {
		if slot.Get("is_processing").Bool() {
			load.Running++
		}
	}
	return load, nil
}

func (l llamaCPP) request(call Call) (request, error) {
	if call.IDs != nil {
		b, err := completion(call)
		if err != nil {
			return request{}, err
		}
		return native(b), nil
	}
	req, err := textRequest(call, continuing{flags: true, prefills: true})
	if err != nil || isChat(call) || !isNative(req.body, call.Choices) {
		return req, err
	}
	return native(req.body), nil
}

// isNative reports whether the server's own API can answer a request of completions as OpenAI's would.
func isNative(b *body, choices int) bool {
	return choices <= 1 && !b.get("logprobs").Exists() && !b.get("echo").Bool() && !b.get("suffix").Exists()
}

// native makes a body of completions one of /completion.
func native(b *body) request {
	b.rename("max_tokens", "n_predict")
	b.rename("repetition_penalty", "repeat_penalty")
	if stop := b.get("stop"); stop.Type == gjson.String {
		b.setRaw("stop", "["+stop.Raw+"]")
	}
	if prompt := b.get("prompt"); prompt.IsArray() {
		if list := prompt.Array(); len(list) == 1 && list[0].Type == gjson.String {
			b.setRaw("prompt", list[0].Raw) // else the answer is that of a list
		}
	}
	b.remove("stream_options", "n", "best_of", "echo")
	b.setBool("return_tokens", true)
	return request{path: pathNative, body: b, decoder: &nativeDecoder{}}
}

// warming has the server read the prompt into its cache, and make nothing.
func (l llamaCPP) warming(call Call) (request, error) {
	req, err := warmed(l.request(call))
	if err != nil {
		return req, err
	}
	req.body.remove("max_tokens", "max_completion_tokens")
	req.body.setInt("n_predict", 0)
	if req.path == pathChat {
		req.body.setInt("max_tokens", 0)
	}
	return req, nil
}

func (l llamaCPP) tokenize(ctx context.Context, call Call) ([]uint32, error) {
	ask := newBody()
	if isChat(call) {
		b, err := parseBody(call.Body)
		if err != nil {
			return nil, err
		}
		b.setBool("stream", false)
		into := struct {
			Prompt string `json:"prompt"`
		}{}
		if err := l.client.exchange(ctx, message{path: "/apply-template", body: b.bytes()}, &into); err != nil {
			return nil, err
		}
		ask.setString("content", into.Prompt)
	} else {
		text, ids, err := promptOf(call)
		if err != nil || ids != nil {
			return ids, err
		}
		ask.setString("content", text)
	}
	ask.setBool("add_special", true)
	ask.setBool("parse_special", true)
	return l.tokens(ctx, ask)
}

// nativeDecoder reads the streams of /completion.
type nativeDecoder struct {
	finish engine.Finish
	said   learned
	tokens int
}

// nativeChunk is an event of them. The last one has stop, and why.
type nativeChunk struct {
	Content   string          `json:"content"`
	Tokens    []uint32        `json:"tokens"`
	Stop      *bool           `json:"stop"`
	StopType  string          `json:"stop_type"`
	Error     json.RawMessage `json:"error"`
	Evaluated int             `json:"tokens_evaluated"` // of the prompt
	Predicted int             `json:"tokens_predicted"`

	StoppedEOS   bool `json:"stopped_eos"` // of versions without stop_type
	StoppedWord  bool `json:"stopped_word"`
	StoppedLimit bool `json:"stopped_limit"`
}

func (c *nativeChunk) reason() string {
	switch {
	case c.StopType == "eos", c.StopType == "word", c.StoppedEOS, c.StoppedWord:
		return engine.Stop
	case c.StopType == "limit", c.StoppedLimit:
		return engine.Length
	}
	return ""
}

func (d *nativeDecoder) learned() learned {
	said := d.said
	said.counted = d.finish.Reason != ""
	return said
}

func (d *nativeDecoder) outcome() (engine.Finish, bool) { return d.finish, d.finish.Reason != "" }

func (d *nativeDecoder) event(data []byte, deltas []Delta) ([]Delta, bool, error) {
	if bytes.Equal(bytes.TrimSpace(data), endOfStream) {
		d.said.done = true
		return deltas, false, nil
	}
	c := nativeChunk{}
	if err := json.Unmarshal(data, &c); err != nil {
		return deltas, false, &Error{Fault: Broken, Message: "an event of the stream cannot be read", Err: err}
	}
	if len(c.Error) > 0 && !bytes.Equal(c.Error, null) {
		if err := errorIn(data); err != nil {
			return deltas, false, err
		}
	}
	if c.Evaluated > 0 {
		d.said.prompt = c.Evaluated
	}
	last := c.Stop != nil && *c.Stop
	if c.Content != "" || len(c.Tokens) > 0 {
		delta := Delta{Text: []byte(c.Content), IDs: c.Tokens, Tokens: max(1, len(c.Tokens))}
		// Of the tokens of a character that several make, the server tells the last one only.
		if made := c.Predicted - d.tokens; made > delta.Tokens && !last {
			delta.IDs, delta.Tokens = nil, made
		}
		d.tokens += delta.Tokens
		deltas = append(deltas, delta)
	}
	if !last {
		return deltas, c.Stop != nil, nil
	}
	d.said.done = true
	if d.finish.Reason = c.reason(); d.finish.Reason == "" {
		return deltas, true, broken("the server stopped for no known reason: " + strconv.Quote(c.StopType))
	}
	d.finish.Usage = engine.Usage{Prompt: c.Evaluated, Completion: c.Predicted}
	return deltas, true, nil
}
