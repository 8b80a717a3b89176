package servertest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

func capture(t *testing.T, name string) read {
	t.Helper()
	text, err := servertest.Capture(name)
	if err != nil {
		t.Fatal(err)
	}
	r := readStream(&http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))})
	if !r.done || r.garbage > 0 || r.openTail != "" {
		t.Fatalf("%s: done %v, garbage %d", name, r.done, r.garbage)
	}
	return r
}

// missing returns the fields of a real event that an event lacks, in all depths.
func missing(real, ours any, at string) []string {
	var lacking []string
	switch real := real.(type) {
	case object:
		fields, _ := ours.(object)
		for name, value := range real {
			if _, there := fields[name]; !there {
				lacking = append(lacking, at+"."+name)
				continue
			}
			lacking = append(lacking, missing(value, fields[name], at+"."+name)...)
		}
	case []any:
		list, _ := ours.([]any)
		if len(real) > 0 && len(list) == 0 {
			return []string{at + "[0]"}
		}
		if len(real) > 0 {
			return missing(real[0], list[0], at+"[0]")
		}
	}
	return lacking
}

// kinds finds an example of each kind of event: by what there is in its choice.
func kinds(r read) map[string]object {
	examples := map[string]object{}
	for _, event := range r.events {
		delta, _ := field(event, "choices", 0, "delta").(object)
		kind := fmt.Sprint(
			delta["role"] != nil, delta["content"] != nil && delta["content"] != "", field(delta, "tool_calls", 0, "id") != nil,
			field(delta, "tool_calls", 0) != nil, field(event, "choices", 0, "finish_reason"), event["usage"] != nil,
		)
		if examples[kind] == nil {
			examples[kind] = event
		}
	}
	return examples
}

func TestEventsHaveTheFieldsOfRealOnes(t *testing.T) {
	cases := []struct {
		name    string
		kind    servertest.Kind
		request object
	}{
		{"vllm_chat", servertest.VLLM, object{"stream_options": object{}}},
		{"openai_tool_calls", servertest.OpenAI, object{"tools": []object{{"type": "function", "function": object{"name": "weather"}}}}},
	}
	for _, tt := range cases {
		c := start(t, tt.kind, servertest.Options{})
		ours := kinds(c.stream(chatPath, c.with(c.chat("hello"), tt.request)))
		for kind, real := range kinds(capture(t, tt.name)) {
			if ours[kind] == nil {
				t.Errorf("%s: no event like %v", tt.name, real)
			} else if lacking := missing(real, ours[kind], ""); len(lacking) > 0 {
				t.Errorf("%s: %v lacking in %v", tt.name, lacking, ours[kind])
			}
		}
	}
}

func TestCapturesThatThereAreNot(t *testing.T) {
	if text, err := servertest.Capture("nothing"); err == nil {
		t.Errorf("captured %q", text)
	}
}
