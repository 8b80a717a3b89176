package api

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/connswap/connswap/shared/wire"
)

// ollama is Ollama, by its OpenAI-compatible API. It takes no ids and tells none.
type ollama struct{ openAI }

func (o ollama) version(ctx context.Context) (string, error) {
	into := struct {
		Version string `json:"version"`
	}{}
	err := o.client.get(ctx, "/api/version", &into)
	return into.Version, err
}

func (o ollama) identify(ctx context.Context) (found, error) {
	version, err := o.version(ctx)
	if err != nil {
		return found{}, err
	}
	tags := struct {
		Models []struct {
			Name    string `json:"name"`
			Digest  string `json:"digest"`
			Details struct {
				Format       string `json:"format"`
				Quantization string `json:"quantization_level"`
			} `json:"details"`
		} `json:"models"`
	}{}
	if err := o.client.get(ctx, "/api/tags", &tags); err != nil {
		return found{}, err
	}
	id := Identity{Kind: Ollama, Version: version}
	bare, answers := true, []string(nil)
	for i, t := range tags.Models {
		show := ollamaShow{}
		if i < maxProbed {
			// A model that cannot be shown is one that cannot be used; the others can.
			err := o.client.post(ctx, "/api/show", map[string]string{"model": t.Name}, &show)
			if err != nil && !isMissing(err) {
				return found{}, err
			}
		}
		id.Models = append(id.Models, Model{
			Name:        t.Name,
			Fingerprint: fingerprint(Ollama, t.Name, version, t.Digest, t.Details.Format, t.Details.Quantization, show.parameters()),
			Context:     show.context(),
		})
		bare = bare && show.isBare()
		if len(answers) == 0 && slices.Contains(show.Capabilities, "embedding") {
			answers = []string{"embeddings"}
		}
	}
	// A prompt goes on as text only where no template is put around it.
	features := Features{Text: map[string]bool{wire.APIChat: true, wire.APICompletions: bare && len(id.Models) > 0}}
	return found{identity: id, features: features, answers: answers}, nil
}

// ollamaShow is what /api/show says of a model.
type ollamaShow struct {
	Parameters   string   `json:"parameters"` // a line for each, in any order
	Template     string   `json:"template"`
	Capabilities []string `json:"capabilities"`
}

// parameters are those of the model, the same ones each time.
func (s ollamaShow) parameters() string {
	lines := strings.Split(s.Parameters, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var numCtx = regexp.MustCompile(`(?m)^num_ctx\s+(\d+)`)

// context returns the model's own num_ctx; 0 for that of the server's environment, which it does not tell.
func (s ollamaShow) context() int {
	if found := numCtx.FindStringSubmatch(s.Parameters); found != nil {
		n, _ := strconv.Atoi(found[1]) // digits; too many are no context
		return n
	}
	return 0
}

// isBare reports whether a prompt is all that the model sees.
func (s ollamaShow) isBare() bool {
	return strings.Join(strings.Fields(s.Template), "") == "{{.Prompt}}"
}

func (o ollama) health(ctx context.Context) (Health, error) { return o.healthAt(ctx, "/api/version") }

// request has a limit always: without one the answer may have no end, and what is beyond the room is no fault. Of several choices Ollama
// would make one, and say nothing; and of max_completion_tokens it reads nothing.
func (o ollama) request(call Call) (request, error) {
	call.Unlimited = false
	if call.Choices > 1 {
		return request{}, &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: fmt.Sprintf("n is %d, and Ollama makes one choice", call.Choices)}
	}
	req, err := o.openAI.request(call)
	if err == nil {
		if most := req.body.get("max_completion_tokens"); most.Exists() {
			req.body.setRaw("max_tokens", most.Raw)
		}
		req.body.remove("max_completion_tokens")
	}
	return req, err
}

func (o ollama) warming(call Call) (request, error) { return warmed(o.request(call)) }
