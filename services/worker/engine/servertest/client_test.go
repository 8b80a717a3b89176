package servertest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// object is a JSON object.
type object = map[string]any

// with returns a copy of an object with more in it.
func (c *client) with(request object, more object) object {
	all := object{}
	for _, part := range []object{request, more} {
		for key, value := range part {
			all[key] = value
		}
	}
	return all
}

// client speaks to one server.
type client struct {
	t      *testing.T
	http   http.Client
	url    string
	server *servertest.Server
	kind   servertest.Kind
}

func start(t *testing.T, kind servertest.Kind, options servertest.Options) *client {
	t.Helper()
	if options.Model == "" {
		options.Model = "m"
	}
	server := servertest.New(kind, options)
	c := &client{t: t, server: server, url: server.Listen(t), kind: kind}
	c.http.Transport = &http.Transport{}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// chat is a greedy request of one message.
func (c *client) chat(text string) object {
	return object{
		"model": "m", "temperature": 0, "stream": true, "messages": []object{{"role": "user", "content": text}},
		"stream_options": object{"include_usage": true},
	}
}

func (c *client) post(path string, request object) *http.Response {
	c.t.Helper()
	response, err := c.send(path, request)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

func (c *client) send(path string, request object) (*http.Response, error) {
	data, err := json.Marshal(request)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url+path, bytes.NewReader(data))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.http.Do(r)
}

// json returns the answer to a request that is no stream.
func (c *client) json(path string, request object) (int, object) {
	c.t.Helper()
	response := c.post(path, request)
	return response.StatusCode, c.decode(response)
}

func (c *client) get(path string) (int, object) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, c.decode(response)
}

func (c *client) decode(response *http.Response) object {
	c.t.Helper()
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	answer := object{}
	if len(data) > 0 && strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(data, &answer); err != nil {
			c.t.Fatalf("%v in %s", err, data)
		}
	}
	return answer
}

// read is what came of a stream.
type read struct {
	status   int
	raw      string
	events   []object
	garbage  int
	done     bool
	pings    int
	err      error // of the body; nil for a clean end
	openTail string
}

// stream reads a stream to its end.
func (c *client) stream(path string, request object) read {
	c.t.Helper()
	response, err := c.send(path, request)
	if err != nil {
		return read{err: err}
	}
	defer response.Body.Close()
	return readStream(response)
}

func readStream(response *http.Response) read {
	data, err := io.ReadAll(response.Body)
	r := read{status: response.StatusCode, raw: string(data), err: err}
	blocks := strings.Split(r.raw, "\n\n")
	r.openTail = blocks[len(blocks)-1]
	for _, block := range blocks[:len(blocks)-1] {
		payload, isData := strings.CutPrefix(block, "data: ")
		event := object{}
		switch {
		case !isData:
			r.pings++
		case payload == "[DONE]":
			r.done = true
		case json.Unmarshal([]byte(payload), &event) != nil:
			r.garbage++
		default:
			r.events = append(r.events, event)
		}
	}
	return r
}

// field is a value deep in an object: names of fields, and places in lists.
func field(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			inner, _ := value.(object)
			value = inner[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}

// choices calls see with each choice of a stream.
func (r *read) choices(see func(index int, choice object)) {
	for _, event := range r.events {
		list, _ := event["choices"].([]any)
		for _, one := range list {
			choice, _ := one.(object)
			index, _ := choice["index"].(float64)
			see(int(index), choice)
		}
	}
}

// text is all of one field of one text: of the deltas in a chat, else of the choices.
func (r *read) text(index int, name string) string {
	var text strings.Builder
	r.choices(func(i int, choice object) {
		if i != index {
			return
		}
		for _, from := range []any{choice, choice["delta"]} {
			part, _ := field(from, name).(string)
			text.WriteString(part)
		}
	})
	return text.String()
}

// finish is the finish_reason of a text.
func (r *read) finish(index int) string {
	reason := ""
	r.choices(func(i int, choice object) {
		if given, ok := choice["finish_reason"].(string); ok && i == index {
			reason = given
		}
	})
	return reason
}

// ids are the token ids of a text.
func (r *read) ids(index int) []int {
	var ids []int
	r.choices(func(i int, choice object) {
		if i == index {
			ids = append(ids, numbers(choice["token_ids"])...)
		}
	})
	return ids
}

// usage is a number of the usage.
func (r *read) usage(name string) int {
	for _, event := range r.events {
		if number, ok := field(event, "usage", name).(float64); ok {
			return int(number)
		}
	}
	return -1
}

func numbers(value any) []int {
	list, _ := value.([]any)
	ids := make([]int, len(list))
	for i, one := range list {
		number, _ := one.(float64)
		ids[i] = int(number)
	}
	return ids
}

func allKinds(t *testing.T, test func(t *testing.T, kind servertest.Kind)) {
	t.Helper()
	for _, kind := range []servertest.Kind{servertest.VLLM, servertest.SGLang, servertest.LlamaCPP, servertest.Ollama, servertest.OpenAI} {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

func isReset(err error) bool {
	return err != nil && !errors.Is(err, io.EOF)
}
