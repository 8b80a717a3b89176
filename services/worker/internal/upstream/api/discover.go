package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/tidwall/gjson"
)

// discover finds out what a server is, by end points that only one kind has. vLLM, SGLang and llama.cpp's server come before Ollama,
// some of whose API they have, too.
func (c *client) discover(ctx context.Context) (Kind, error) {
	models, err := c.ask(ctx, pathModels)
	if err != nil {
		return "", err
	}
	switch models.Get("data.0.owned_by").Str {
	case "vllm":
		return VLLM, nil
	case "sglang":
		return SGLang, nil
	case "llamacpp":
		return LlamaCPP, nil
	}
	for _, probe := range []struct {
		path, field string
		kind        Kind
	}{
		{"/props", "default_generation_settings", LlamaCPP},
		{"/get_model_info", "is_generation", SGLang},
		{"/model_info", "is_generation", SGLang},
		{"/version", "version", VLLM},
		{"/api/version", "version", Ollama},
	} {
		said, err := c.ask(ctx, probe.path)
		if err != nil {
			return "", err
		}
		if said.Get(probe.field).Exists() {
			return probe.kind, nil
		}
	}
	if !models.Get("data").IsArray() {
		return "", &Error{Fault: Denied, Message: "the server has no " + pathModels + ", and is of no kind that is known"}
	}
	return OpenAI, nil
}

// ask returns the JSON document that an end point answers with; an empty one where the server has no such end point.
func (c *client) ask(ctx context.Context, path string) (gjson.Result, error) {
	doc, err := c.document(ctx, message{path: path})
	switch {
	case err == nil && json.Valid(doc):
		return gjson.ParseBytes(doc), nil
	case err == nil, isMissing(err):
		return gjson.Result{}, nil
	}
	return gjson.Result{}, err
}

// isMissing reports whether an error says that there is no such end point, rather than that the server cannot be asked now.
func isMissing(err error) bool {
	why := (*Error)(nil)
	if !errors.As(err, &why) {
		return false
	}
	switch why.Fault {
	case Rejected, Failed:
		return true
	case Denied:
		return why.Status != http.StatusUnauthorized && why.Status != http.StatusForbidden && why.Status != 0
	default:
		return false
	}
}
