package upstream

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/wire"
)

// TestChatOf: what a request of the API responses is as one of chats.
func TestChatOf(t *testing.T) {
	tests := map[string]struct{ response, chat string }{
		"a text": {
			`{"model":"m","input":"Hi","stream":true,"store":false,"temperature":0.5,"top_p":0.9,"user":"u","seed":3,"metadata":{"a":"b"},"x":1}`,
			`{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,"temperature":0.5,"top_p":0.9,"user":"u","seed":3,"metadata":{"a":"b"},"x":1}`,
		},
		"instructions and limits": {
			`{"input":"Hi","instructions":"Be brief.","max_output_tokens":9,"reasoning":{"effort":"low","summary":null},"parallel_tool_calls":false,"truncation":"auto"}`,
			`{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"max_completion_tokens":9,"reasoning_effort":"low","parallel_tool_calls":false}`,
		},
		"a conversation": {
			`{"input":[
				{"role":"developer","content":"Be brief."},
				{"role":"user","content":[{"type":"input_text","text":"What is"},{"type":"input_text","text":" this?"}]},
				{"type":"reasoning","id":"rs_1","summary":[]},
				{"type":"message","role":"assistant","content":[{"type":"output_text","text":"A cat."},{"type":"refusal","refusal":"No."}]},
				{"type":"message","role":"user","content":[{"type":"input_text","text":"And this?"},{"type":"input_image","image_url":"data:x","detail":"low"}]}]}`,
			`{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"What is this?"},{"role":"assistant","content":"A cat.No."},
				{"role":"user","content":[{"type":"text","text":"And this?"},{"type":"image_url","image_url":{"url":"data:x","detail":"low"}}]}]}`,
		},
		"tools": {
			`{"input":[{"role":"user","content":"Weather?"},
				{"type":"function_call","call_id":"c1","name":"weather","arguments":"{}"},
				{"type":"function_call","call_id":"c2","name":"weather","arguments":"{1}"},
				{"type":"function_call_output","call_id":"c1","output":"sunny"},
				{"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"rain"}]}],
			  "tools":[{"type":"function","name":"weather","description":"d","parameters":{"type":"object"},"strict":true},{"type":"custom","name":"code"}],
			  "tool_choice":{"type":"function","name":"weather"}}`,
			`{"messages":[{"role":"user","content":"Weather?"},
				{"role":"assistant","content":null,"tool_calls":[
					{"id":"c1","type":"function","function":{"name":"weather","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"weather","arguments":"{1}"}}]},
				{"role":"tool","tool_call_id":"c1","content":"sunny"},{"role":"tool","tool_call_id":"c2","content":"rain"}],
			  "tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"custom","custom":{"name":"code"}}],
			  "tool_choice":{"type":"function","function":{"name":"weather"}}}`,
		},
		"a schema": {
			`{"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true},"verbosity":"low"},"tool_choice":"none"}`,
			`{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}},"verbosity":"low","tool_choice":"none"}`,
		},
		"plain text and logprobs": {
			`{"input":"x","text":{"format":{"type":"text"}},"top_logprobs":2}`,
			`{"messages":[{"role":"user","content":"x"}],"top_logprobs":2,"logprobs":true}`,
		},
		"logprobs by name": {
			`{"input":"x","include":["message.output_text.logprobs"],"tools":null,"instructions":null}`,
			`{"messages":[{"role":"user","content":"x"}],"logprobs":true}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			chat, err := chatOf([]byte(test.response))
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(chat, &got), json.Unmarshal([]byte(test.chat), &want)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %v", chat, err)
			}
		})
	}
}

// TestUntranslatable: what chats do not have is refused by name.
func TestUntranslatable(t *testing.T) {
	for body, word := range map[string]string{
		`{"input":[{"type":"file_search_call"}]}`:                                      "file_search_call",
		`{"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`:  "input_file",
		`{"input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}`: "image_url",
		`{"input":[{"content":"x"}]}`:                                                  "role",
		`{"input":"x","tools":[{"type":"web_search"}]}`:                                "web_search",
		`{"input":"x","tool_choice":{"type":"mcp"}}`:                                   "mcp",
		`{"input":"x","text":{"format":{"type":"grammar"}}}`:                           "grammar",
		`{"input":5}`: "input",
		`{`:           "cannot be read",
	} {
		_, err := chatOf([]byte(body))
		var refusal *wire.Error
		if !errors.As(err, &refusal) || refusal.Code != wire.CodeInvalid || !strings.Contains(refusal.Message, word) {
			t.Errorf("%s: %v", body, err)
		}
	}
}
