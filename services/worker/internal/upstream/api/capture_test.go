package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// What real servers have sent is read as they meant it.
func TestCaptures(t *testing.T) {
	chat := api.Call{API: wire.APIChat, Body: []byte(`{}`)}
	capture := func(name string) string {
		stream, err := servertest.Capture(name)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	got := read(saying(t, api.OpenAI, capture("openai_tool_calls")).Generate(t.Context(), chat))
	if got.finish.Reason != engine.ToolCalls || got.finish.Usage.Prompt == 0 || got.finish.Usage.Completion == 0 {
		t.Errorf("%v, %+v", got.end, got.finish.Usage)
	}
	for _, key := range []string{"0/3/0", "0/3/1"} {
		arguments, ok := strings.CutPrefix(got.bytes[key], "get_current_weather")
		if !ok || !json.Valid([]byte(arguments)) {
			t.Errorf("%s is %q", key, got.bytes[key])
		}
	}
	got = read(saying(t, api.VLLM, capture("vllm_chat")).Generate(t.Context(), chat))
	if got.finish.Reason == "" || !strings.HasPrefix(got.bytes[content], "GPUs power") || len(got.ids) != 0 || got.tokens == 0 {
		t.Errorf("%q, %v", got.bytes, got.end)
	}
}

// input_token_logprobs and input_top_logprobs begin at logprob_start_len, with an entry that has none.
func TestLikelySGLang(t *testing.T) {
	for answer, want := range map[string]bool{
		`[[-0.1,8,null]],[[-0.2,9,null]]`: true,
		`[[-0.1,8,null]],[[-0.1,7,null]]`: false,
		`[[-0.1,8,null]],[[-0.2,3,null]]`: true, // as likely as another one
	} {
		asked := ""
		s := answering(t, api.SGLang, func(w http.ResponseWriter, r *http.Request) {
			doc, _ := io.ReadAll(r.Body)
			asked = r.URL.Path + " " + string(doc)
			io.WriteString(w, `{"text":"x","meta_info":{"input_token_logprobs":[[null,6,null],[-0.1,8,null],[-0.2,9,null]],"input_top_logprobs":[null,`+answer+`]}}`) //nolint:errcheck // a client that has gone is told nothing
		})
		likely, err := s.Likely(t.Context(), "m", []uint32{5, 6, 8, 9}, 2)
		if err != nil || likely != want {
			t.Errorf("%s: %v, %v", answer, likely, err)
		}
		if !strings.HasPrefix(asked, "/generate ") || !strings.Contains(asked, `"input_ids":[5,6,8,9]`) || !strings.Contains(asked, `"logprob_start_len":1`) {
			t.Error(asked)
		}
	}
}
