package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

const (
	pathChat        = "/v1/chat/completions"
	pathCompletions = "/v1/completions"
	pathModels      = "/v1/models"
)

// maxProbed is how many models are asked for a fingerprint.
const maxProbed = 32

// openAI is any server with OpenAI's API, and what the others have in common with it.
type openAI struct{ client *client }

// listed is a model as /v1/models has it.
type listed struct {
	ID          string `json:"id"`
	Created     int64  `json:"created"`
	OwnedBy     string `json:"owned_by"`
	Root        string `json:"root"`
	MaxModelLen int    `json:"max_model_len"`
	Meta        struct {
		Train int   `json:"n_ctx_train"`
		Size  int64 `json:"size"`
	} `json:"meta"`
}

func (o openAI) models(ctx context.Context) ([]listed, error) {
	list := struct {
		Data []listed `json:"data"`
	}{}
	err := o.client.get(ctx, pathModels, &list)
	return list.Data, err
}

func (o openAI) identify(ctx context.Context) (found, error) {
	list, err := o.models(ctx)
	if err != nil {
		return found{}, err
	}
	id := Identity{Kind: OpenAI}
	for i, m := range list {
		said := ""
		if len(list) <= maxProbed/8 || i == 0 { // a large list is that of a service, whose tokens cost
			if said, err = o.client.saidFingerprint(ctx, o, m.ID); err != nil {
				return found{}, err
			}
		}
		id.Models = append(id.Models, Model{
			Name:        m.ID,
			Fingerprint: fingerprint(OpenAI, m.ID, m.OwnedBy, m.Created, said),
			Context:     m.MaxModelLen,
		})
	}
	return found{identity: id, answers: o.answering(ctx, o.path, list, "embeddings")}, nil
}

// saidFingerprint has a server make one token, and returns the fingerprint that it says with it; empty if it says none, or makes no text
// with this model.
func (c *client) saidFingerprint(ctx context.Context, d dialect, model string) (string, error) {
	for _, call := range []Call{
		{API: wire.APICompletions, Prompt: "a"},
		{API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"a"}]}`)},
	} {
		call.Model, call.MaxTokens, call.Choices = model, 1, 1
		said, err := c.oneToken(ctx, d, call)
		if err == nil {
			return said, nil
		}
		if why := (*Error)(nil); !errors.As(err, &why) || why.Fault != Rejected && why.Fault != Denied {
			return "", err
		}
	}
	return "", nil
}

func (c *client) oneToken(ctx context.Context, d dialect, call Call) (string, error) {
	req, err := d.request(call)
	if err != nil {
		return "", err
	}
	stream, err := c.stream(ctx, req, "")
	if err != nil {
		return "", err
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Next()
	}
	if _, ok := engine.Finished(err); !ok {
		return "", err
	}
	return req.decoder.learned().fingerprint, nil
}

// fingerprint names what makes a text: the kind, the model, and a digest of the rest.
func fingerprint(kind Kind, model string, rest ...any) string {
	digest := sha256.New()
	if whole := model; wire.Name(whole) != whole { // a path, for instance: directors take no fingerprint of any length
		model, rest = wire.Name(whole), append(rest, whole)
	}
	for _, part := range rest {
		text := fmt.Sprint(part)
		fmt.Fprintf(digest, "%d:%s", len(text), text)
	}
	return string(kind) + ":" + model + ":" + hex.EncodeToString(digest.Sum(nil)[:8])
}

// answering returns which of these APIs the server answers: it is asked for the smallest of answers with its first model.
func (o openAI) answering(ctx context.Context, path func(api string) string, list []listed, names ...string) []string {
	if len(list) == 0 || len(list) > maxProbed {
		return nil
	}
	known := []string(nil)
	for _, name := range names {
		ask, into := map[string]any{"model": list[0].ID}, struct{}{}
		switch name {
		case "embeddings":
			ask["input"] = "a"
		case "rerank":
			ask["query"], ask["documents"] = "a", []string{"a"}
		case "score":
			ask["text_1"], ask["text_2"] = "a", "a"
		}
		if o.client.post(ctx, path(name), ask, &into) == nil {
			known = append(known, name)
		}
	}
	return known
}

func (o openAI) path(api string) string {
	switch api {
	case "tokenize", "detokenize":
		return "/" + api
	}
	return "/v1/" + api
}

func (o openAI) health(ctx context.Context) (Health, error) {
	health, err := o.healthAt(ctx, "/health")
	if isFault(err, Denied) { // not every server has it
		return o.healthAt(ctx, pathModels)
	}
	return health, err
}

// healthAt asks an end point that has status 200 if the server is ready.
func (o openAI) healthAt(ctx context.Context, path string) (Health, error) {
	_, err := o.client.document(ctx, message{path: path})
	if why := (*Error)(nil); errors.As(err, &why) && why.isLoading() {
		return Health{Starting: true, Reason: why.Message}, nil
	}
	return Health{}, err
}

// isLoading reports whether a server says that it is there, and loads a model.
func (e *Error) isLoading() bool {
	message := strings.ToLower(e.Message)
	return e.Fault == Gone && e.Status != 0 &&
		(strings.Contains(message, "loading") || strings.Contains(message, "starting") || strings.Contains(message, "warming"))
}

func isFault(err error, fault Fault) bool {
	why := (*Error)(nil)
	return errors.As(err, &why) && why.Fault == fault
}

func (o openAI) load(context.Context) (Load, error) { return Load{}, nil }

func (o openAI) request(call Call) (request, error) {
	if call.IDs != nil {
		return request{}, unsupported("this kind of server takes no ids", errors.ErrUnsupported)
	}
	req, err := textRequest(call, continuing{prefills: true})
	if err == nil && call.Unlimited {
		req.body.remove("max_tokens")
	}
	return req, err
}

// textRequest returns a request for a call without ids.
func textRequest(call Call, how continuing) (request, error) {
	b, err := callBody(call)
	if err == nil && call.Text != nil {
		err = b.goOn(call, how)
	}
	if err != nil {
		return request{}, err
	}
	path := pathCompletions
	if isChat(call) {
		path = pathChat
	}
	return request{path: path, body: b, decoder: newOpenAIDecoder(call.Choices)}, nil
}

// idsRequest returns a request of completions that goes on behind ids.
func idsRequest(call Call) (request, error) {
	b, err := completion(call)
	if err != nil {
		return request{}, err
	}
	return request{path: pathCompletions, body: b, decoder: newOpenAIDecoder(call.Choices)}, nil
}

func (o openAI) warming(call Call) (request, error) { return warmed(o.request(call)) }

// warmed makes a request one for a single token.
func warmed(req request, err error) (request, error) {
	if err == nil {
		req.body.remove("n", "best_of", "logprobs", "top_logprobs")
	}
	return req, err
}

func (o openAI) tokenize(context.Context, Call) ([]uint32, error) { return nil, errors.ErrUnsupported }

func (o openAI) likely(context.Context, string, []uint32, int) (bool, error) {
	return false, errors.ErrUnsupported
}

// promptOf returns the prompt of a call of completions: a text, or else ids, or errors.ErrUnsupported for what is neither.
func promptOf(call Call) (text string, ids []uint32, err error) {
	if call.Body == nil {
		return call.Prompt, nil, nil
	}
	b, err := parseBody(call.Body)
	if err != nil {
		return "", nil, err
	}
	return b.prompt()
}

func (b *body) prompt() (text string, ids []uint32, err error) {
	prompt := b.get("prompt")
	if !prompt.IsArray() {
		return prompt.String(), nil, nil
	}
	list := prompt.Array()
	if len(list) == 1 && list[0].Raw != "" && list[0].Raw[0] == '"' {
		return list[0].Str, nil, nil
	}
	for _, id := range list {
		n := id.Uint()
		if id.Raw == "" || id.Raw[0] < '0' || id.Raw[0] > '9' || n > 1<<32-1 {
			return "", nil, errors.ErrUnsupported
		}
		ids = append(ids, uint32(n))
	}
	return "", ids, nil
}
