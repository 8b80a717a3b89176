package openai

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// api is one of OpenAI's APIs: those below, which generate text, or one of wire.APIs, whose requests go to the engine as they are. Its
// text is how a request says whose form its body has: see wirepb.Request.
type api string

const (
	chat        api = wire.APIChat
	completions api = wire.APICompletions
	responses   api = wire.APIResponses
)

// ask is what a client asks for: the request as the stream has it, and what only the answer depends on.
type ask struct {
	api     api
	request *wirepb.Request
	stream  bool
	usage   bool // a stream tells it
	fields  map[string]json.RawMessage
	input   []json.RawMessage // of responses: the items, without those of earlier responses
	earlier string            // id of the response that this one follows; empty for none

	limitedBy string // the field that says how many tokens there may be
}

// Bounds on what a request may ask for.
const (
	maxStops = 16
	maxStop  = 256 // bytes of a stop string
)

// parse reads the named fields of a request, and leaves the rest for the engine: the body stays as it is. The error says which
// field is wrong.
func parse(of api, body []byte, maxTokens int) (*ask, error) {
	a := &ask{api: of, request: &wirepb.Request{Api: string(of), Body: body}}
	if err := json.Unmarshal(body, &a.fields); err != nil {
		return nil, invalid("", "the body is no JSON object: "+wire.Text(err.Error()))
	}
	var err error
	switch of {
	case chat:
		err = a.readChat()
	case completions:
		err = a.readCompletion()
	case responses:
		err = a.readResponse()
	default:
		a.request.Choices = 1
		return a, a.read("model", &a.request.Model)
	}
	if err == nil {
		err = a.readCommon(maxTokens)
	}
	return a, err
}

// read reads one field. One that is absent, or null, leaves to as it is.
func (a *ask) read(name string, to any) error {
	raw, ok := a.fields[name]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return invalid(name, fmt.Sprintf("%s: want %v, got %s", name, wrong.Type, wrong.Value))
		}
		return invalid(name, name+": "+wire.Text(err.Error()))
	}
	return nil
}

// readCommon reads what all three APIs have.
func (a *ask) readCommon(maxTokens int) error {
	r := a.request
	var n, seed *int64
	choices := int64(1)
	for _, name := range []string{"max_output_tokens", "max_completion_tokens", "max_tokens"} {
		if (name == "max_output_tokens") != (a.api == responses) || n != nil {
			continue
		}
		if err := a.read(name, &n); err != nil {
			return err
		}
		a.limitedBy = name
	}
	limit := a.limitedBy
	switch {
	case n == nil:
		r.MaxTokens = 0
	case *n < 1:
		return invalid(limit, fmt.Sprintf("%s is %d; give at least 1", limit, *n))
	case *n > int64(maxTokens):
		return invalid(limit, fmt.Sprintf("%s is %d, this server allows %d", limit, *n, maxTokens))
	default:
		r.MaxTokens = uint32(*n)
	}
	err := errors.Join(a.read("model", &r.Model), a.read("stream", &a.stream), a.read("seed", &seed), a.read("n", &choices), a.readStop())
	if err != nil {
		return first(err)
	}
	if choices < 1 || choices > wire.MaxChoice+1 {
		return invalid("n", fmt.Sprintf("n is %d; give 1 to %d", choices, wire.MaxChoice+1))
	}
	if a.api == responses && choices > 1 {
		return invalid("n", "n: a response is one text; chat/completions and completions have choices")
	}
	if len(r.GetModel()) > longestName || strings.ContainsFunc(r.GetModel(), func(c rune) bool { return c < ' ' }) {
		return invalid("model", "model: no name of a model")
	}
	r.Choices = uint32(choices)
	if seed != nil {
		r.Seed = uint64(*seed)
	} else {
		r.Seed = randomSeed() // so that whoever goes on with the stream draws as the first worker did
	}
	return nil
}

// limit refuses a request for more tokens than there may be of its model, and gives as many to one that does not say how many.
func (a *ask) limit(most int) error {
	q := a.request
	switch {
	case q.GetMaxTokens() == 0:
		q.MaxTokens = uint32(most)
	case int64(q.GetMaxTokens()) > int64(most):
		return invalid(a.limitedBy, fmt.Sprintf("%s is %d, this server allows %d for the model %q", a.limitedBy, q.GetMaxTokens(), most, q.GetModel()))
	}
	return nil
}

// longestName of a model, in bytes.
const longestName = 256

// first is the first of some errors, as a client is told one at a time.
func first(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return err
}

func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) >> 1
}

// readStop reads stop: a string, or a list of some.
func (a *ask) readStop() error {
	var one string
	var many []string
	if a.read("stop", &one) == nil {
		many = []string{one}
	} else if a.read("stop", &many) != nil {
		return invalid("stop", "stop: want a string or a list of strings")
	}
	for _, stop := range many {
		if len(stop) > maxStop {
			return invalid("stop", fmt.Sprintf("stop: a string of %d bytes, allowed are %d", len(stop), maxStop))
		}
		if stop != "" {
			a.request.Stop = append(a.request.Stop, stop)
		}
	}
	if len(a.request.Stop) > maxStops {
		return invalid("stop", fmt.Sprintf("stop: %d strings, allowed are %d", len(a.request.Stop), maxStops))
	}
	return nil
}

// message is one of a chat, as far as it is read here.
type message struct {
	Type    string          `json:"type"` // of an item of responses; empty for a message
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// readChat reads what only chats have. An engine that takes no chat gets the text of the last message of the user.
func (a *ask) readChat() error {
	var messages []message
	var options struct {
		IncludeUsage bool `json:"include_usage"`
	}
	if err := errors.Join(a.read("messages", &messages), a.read("stream_options", &options)); err != nil {
		return first(err)
	}
	if len(messages) == 0 {
		return invalid("messages", "messages: give at least one")
	}
	a.usage = options.IncludeUsage
	var err error
	a.request.Prompt, err = lastOfUser("messages", messages)
	return err
}

// lastOfUser returns the text of the last message of the user; of the last one at all if there is none.
func lastOfUser(param string, messages []message) (text string, err error) {
	for _, m := range messages {
		if m.Type != "" && m.Type != "message" {
			continue
		}
		if m.Role == "" {
			return "", invalid(param, param+": a message without a role")
		}
	}
	for i := len(messages) - 1; i >= 0; i-- {
		if m := messages[i]; m.Role == "user" || i == 0 {
			return textOf(param, m.Content)
		}
	}
	return "", nil
}

// textOf returns the text of a message's content: a string, or parts of which those with a text count.
func textOf(param string, content json.RawMessage) (text string, err error) {
	if len(content) == 0 || bytes.Equal(content, []byte("null")) {
		return "", nil
	}
	if json.Unmarshal(content, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(content, &parts) != nil {
		return "", invalid(param, param+": the content of a message has to be a string, or a list of parts")
	}
	for _, p := range parts {
		text += p.Text
	}
	return text, nil
}

// readCompletion reads what only completions have. Prompts of token ids are for engines that know them.
func (a *ask) readCompletion() error {
	var options struct {
		IncludeUsage bool `json:"include_usage"`
	}
	if err := a.read("stream_options", &options); err != nil {
		return err
	}
	a.usage = options.IncludeUsage
	var prompt string
	var list []json.RawMessage
	switch {
	case len(a.fields["prompt"]) == 0:
		return invalid("prompt", "prompt: there is none")
	case a.read("prompt", &prompt) == nil:
	case a.read("prompt", &list) != nil:
		return invalid("prompt", "prompt: want a string, a list of one string, or token ids")
	case len(list) == 1 && json.Unmarshal(list[0], &prompt) == nil:
	case len(list) > 0 && isNumber(list[0]): // token ids
	case len(list) > 1:
		return invalid("prompt", fmt.Sprintf("prompt: %d prompts in one request; send a request for each", len(list)))
	case len(list) == 0:
		return invalid("prompt", "prompt: an empty list")
	}
	a.request.Prompt = prompt
	return nil
}

func isNumber(raw json.RawMessage) bool {
	var n float64
	return json.Unmarshal(raw, &n) == nil
}

// notServed are fields of responses that ask for what there is not here, with what they say when they do not.
var notServed = map[string][]string{
	"background": {"false"}, "conversation": nil, "prompt": nil,
}

// readResponse reads what only responses have.
func (a *ask) readResponse() error {
	for name, harmless := range notServed {
		raw := string(a.fields[name])
		if raw != "" && raw != "null" && !slices.Contains(harmless, raw) {
			return &failure{status: http.StatusNotImplemented, kind: unsupported, code: "unsupported_parameter", param: name, message: name + " is not supported here"}
		}
	}
	if err := a.readTools(); err != nil {
		return err
	}
	var text string
	switch {
	case len(a.fields["input"]) == 0:
		return invalid("input", "input: there is none")
	case a.read("input", &text) == nil:
		item, _ := json.Marshal(map[string]any{"type": "message", "role": "user", "content": []any{map[string]string{"type": "input_text", "text": text}}})
		a.input = []json.RawMessage{item}
	case a.read("input", &a.input) != nil:
		return invalid("input", "input: want a string, or a list of items")
	}
	messages := make([]message, len(a.input))
	for i, raw := range a.input {
		if json.Unmarshal(raw, &messages[i]) != nil {
			return invalid("input", fmt.Sprintf("input: item %d is no item", i))
		}
	}
	if len(messages) > 0 {
		var err error
		if a.request.Prompt, err = lastOfUser("input", messages); err != nil {
			return err
		}
	}
	return a.read("previous_response_id", &a.earlier)
}

// toolTypes are those that are passed on to engines. All others run at OpenAI's side, and there is none here.
var toolTypes = []string{"function", "custom"}

func (a *ask) readTools() error {
	var tools []struct {
		Type string `json:"type"`
	}
	if err := a.read("tools", &tools); err != nil {
		return err
	}
	for _, tool := range tools {
		if !slices.Contains(toolTypes, tool.Type) {
			return &failure{
				status: http.StatusNotImplemented, kind: unsupported, code: "unsupported_tool", param: "tools",
				message: fmt.Sprintf("tools: %.80q is not supported here; there are: %s", tool.Type, strings.Join(toolTypes, ", ")),
			}
		}
	}
	return nil
}

// classes of continuity, as the header x-connswap-continuity names them: what is asked for at least.
var classes = []string{"any", "text", "verified", "exact"}

// verified is what is asked for where nothing is said, by the request or of its model.
const verified = 2

// continuityOf reads the header, which may be absent.
func continuityOf(header string, otherwise uint32) (uint32, error) {
	if header = strings.ToLower(strings.TrimSpace(header)); header == "" {
		return otherwise, nil
	}
	for i, name := range classes {
		if name == header {
			return uint32(i), nil
		}
	}
	return 0, invalid("", fmt.Sprintf("x-connswap-continuity is %.40q; give one of %s", header, strings.Join(classes, ", ")))
}
