// Package engines has the engines that come with the worker.
package engines

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// Options are what an engine needs beyond its name.
type Options struct {
	StateBytes int // of engine stateful: the size of a state, 1024 to wire.MaxState
}

var byName = map[string]func(Options) (engine.Engine, error){
	"markov":   func(Options) (engine.Engine, error) { return NewMarkov(), nil },
	"counter":  func(Options) (engine.Engine, error) { return Counter{}, nil },
	"stateful": func(o Options) (engine.Engine, error) { return NewStateful(o.StateBytes) },
}

// New returns the engine with the given name. The error names those that there are.
func New(name string, options Options) (engine.Engine, error) {
	build, ok := byName[name]
	if !ok {
		known := slices.Sorted(maps.Keys(byName))
		return nil, fmt.Errorf("unknown engine %q, known are %s", name, strings.Join(known, ", "))
	}
	return build(options)
}

// begin returns the limit of a text of a built-in engine, all of which make one choice. A token of the prompt is a word.
func begin(name string, req engine.Request, made int) (engine.Limit, error) {
	if req.Choices > 1 {
		return engine.Limit{}, wire.Errorf(wire.CodeInvalid, "engine %s makes one choice, and was asked for %d", name, req.Choices)
	}
	wish, err := wishOf(req)
	if err == nil {
		err = wish.unmet(name)
	}
	return engine.NewLimit(req, made, len(strings.Fields(req.Prompt))), err
}

// wish is what a request in OpenAI's form asks for beyond plain text.
type wish struct {
	IgnoreEOS      bool            `json:"ignore_eos"` // of vLLM: the text goes on to its limit
	Logprobs       json.RawMessage `json:"logprobs"`
	ToolChoice     json.RawMessage `json:"tool_choice"`
	ResponseFormat struct {
		Type string `json:"type"`
	} `json:"response_format"`
	Text struct {
		Format struct {
			Type string `json:"type"`
		} `json:"format"`
	} `json:"text"`
}

func wishOf(req engine.Request) (w wish, err error) {
	if req.API == "" || len(req.Body) == 0 {
		return wish{IgnoreEOS: true}, nil
	}
	if err := json.Unmarshal(req.Body, &w); err != nil {
		return w, wire.Errorf(wire.CodeInvalid, "the request cannot be read: %v", err)
	}
	return w, nil
}

// unmet says what a built-in engine cannot do of it.
func (w wish) unmet(name string) error {
	format := cmp.Or(w.ResponseFormat.Type, w.Text.Format.Type, "text")
	choice := string(w.ToolChoice)
	what := ""
	switch {
	case format != "text":
		what = "response_format " + strconv.Quote(format)
	case choice != "" && choice != "null" && choice != `"auto"` && choice != `"none"`:
		what = "a tool_choice that wants a call"
	case len(w.Logprobs) > 0 && !slices.Contains([]string{"false", "null", "0"}, string(w.Logprobs)):
		what = "logprobs"
	default:
		return nil
	}
	return wire.Errorf(wire.CodeInvalid, "engine %s makes plain text, and was asked for %s", name, wire.Text(what))
}

// fingerprint names an engine by all that its tokens depend on.
func fingerprint(name string, version int, data string) string {
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("%s/%d/%s", name, version, hex.EncodeToString(sum[:8]))
}
