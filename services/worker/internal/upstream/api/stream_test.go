package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// answering returns a Server whose requests are all answered by a handler.
func answering(t *testing.T, kind api.Kind, handler http.HandlerFunc) *api.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return connect(t, api.Config{URL: server.URL, Kind: kind})
}

// saying returns one that answers with these bytes as a stream.
func saying(t *testing.T, kind api.Kind, stream string) *api.Server {
	return answering(t, kind, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, stream) //nolint:errcheck // a client that has gone is told nothing
	})
}

func events(list ...string) string {
	var b strings.Builder
	for _, data := range list {
		b.WriteString("data: " + data + "\n\n")
	}
	return b.String()
}

func choice(index int, delta, finish string) string {
	if finish != "null" {
		finish = `"` + finish + `"`
	}
	return fmt.Sprintf(`{"id":"x","choices":[{"index":%d,"delta":%s,"logprobs":null,"finish_reason":%s}],"usage":null,"error":null}`, index, delta, finish)
}

var (
	a    = choice(0, `{"content":"a"}`, "null")
	b    = choice(0, `{"content":"b"}`, "null")
	stop = choice(0, `{}`, "stop")
)

const (
	usageChunk = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":4}}}`
	done       = "[DONE]"
)

func TestStreams(t *testing.T) {
	large := choice(0, `{"content":"`+strings.Repeat("x", 300_000)+`"}`, "null")
	cases := []struct {
		name, stream string
		choices      int
		want         string // what bytes has, in the order of its keys
		reason       string
		fault        api.Fault
	}{
		{"plain", events(a, b, stop, usageChunk, done), 1, "0/0=ab", "stop", ""},
		{"role and empty chunks", events(choice(0, `{"role":"assistant","content":""}`, "null"), a, choice(0, `{}`, "null"), stop, done), 1, "0/0=a", "stop", ""},
		{"no [DONE]", events(a, stop), 1, "0/0=a", "stop", ""},
		{"finish with content", events(choice(0, `{"content":"a"}`, "length"), done), 1, "0/0=a", "length", ""},
		{"null delta", events(a, `{"choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}`, done), 1, "0/0=a", "stop", ""},
		{"completions", events(`{"choices":[{"index":0,"text":"a","finish_reason":null}]}`, `{"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}`, done), 1, "0/0=ab", "stop", ""},
		{"both names of reasoning", events(choice(0, `{"reasoning":"r","reasoning_content":"r"}`, "null"), choice(0, `{"reasoning_content":"s"}`, "null"), a, stop), 1, "0/0=a 0/1=rs", "stop", ""},
		{"refusal", events(choice(0, `{"refusal":"no"}`, "null"), stop), 1, "0/2=no", "stop", ""},
		{"choices", events(a, choice(1, `{"content":"c"}`, "null"), stop, b0(1), done), 2, "0/0=a 1/0=c", "stop", ""},
		{"CRLF, BOM, comments, no space, fields", "\xef\xbb\xbf: hi\r\n\r\nid: 1\r\nevent: x\r\nretry: 5\r\ndata:" + a + "\r\n\r\n:\n\ndata\n\n" + events(stop), 1, "0/0=a", "stop", ""},
		{"data of several lines", "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"a\"}}]}\n\n" + events(stop), 1, "0/0=a", "stop", ""},
		{"a large event", events(large, stop), 1, "0/0=" + strings.Repeat("x", 300_000), "stop", ""},
		{"tool calls", events(
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"}}]}`, "null"),
			choice(0, `{}`, "tool_calls")), 1, `0/3/0=f{"a":1} 0/3/1=g{}`, "tool_calls", ""},
		{"a tool's name in each piece", events(
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{"}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"}"}}]}`, "tool_calls")), 1, `0/3/0=f{}`, "tool_calls", ""},
		{"all tool calls of index 0", events(
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"id":"c2","function":{"name":"f","arguments":"[]"}}]}`, "tool_calls")), 1, `0/3/0=f{} 0/3/1=f[]`, "tool_calls", ""},
		{
			"tool calls without an index", events(
				choice(0, `{"tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{}"}},{"id":"c2","function":{"name":"g","arguments":"[]"}}]}`, "tool_calls")),
			1, `0/3/0=f{} 0/3/1=g[]`, "tool_calls", "",
		},
		{"a custom tool", events(
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","type":"custom","custom":{"name":"f","input":"x"}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"custom":{"input":"y"}}]}`, "tool_calls")), 1, `0/3/0=fxy`, "tool_calls", ""},
		{
			"a legacy function call", events(choice(0, `{"function_call":{"name":"f","arguments":"{"}}`, "null"), choice(0, `{"function_call":{"arguments":"}"}}`, "function_call")),
			1, `0/3/0=f{}`, "function_call", "",
		},
		{"a reset behind the finish", events(a, stop) + "data: {\"cho", 1, "0/0=a", "stop", ""},
		{"the finish twice", events(a, stop, stop, done), 1, "0/0=a", "stop", ""},

		{"no finish", events(a, b, done), 1, "0/0=ab", "", api.Broken},
		{"no finish, no [DONE]", events(a, b), 1, "0/0=ab", "", api.Broken},
		{"nothing", "", 1, "", "", api.Broken},
		{"a choice without a finish", events(a, choice(1, `{"content":"c"}`, "null"), stop, done), 2, "0/0=a 1/0=c", "", api.Broken},
		{"a choice that never began", events(a, stop, done), 2, "0/0=a", "", api.Broken},
		{"Ollama's runner was killed", events(a, `{"id":"x","model":"","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`), 1, "0/0=a", "", api.Broken},
		{"an unfinished event", events(a) + "data: " + stop, 1, "0/0=a", "", api.Broken},
		{"half an event", events(a) + `data: {"choi` + "\n\n", 1, "0/0=a", "", api.Broken},
		{"garbage", events(a, "garbage", stop, done), 1, "0/0=a", "", api.Broken},
		{"a wrong type", events(a, `{"choices":"x"}`, stop, done), 1, "0/0=a", "", api.Broken},
		{"too large an event", events(a) + "data: " + strings.Repeat("x", 1<<20+1), 1, "0/0=a", "", api.Broken},
		{"too large in many lines", events(a) + strings.Repeat("data: "+strings.Repeat("x", 1<<16)+"\n", 20), 1, "0/0=a", "", api.Broken},
		{"text behind the finish", events(a, stop, b, done), 1, "0/0=a", "", api.Broken},
		{"another reason", events(a, stop, choice(0, `{}`, "length"), done), 1, "0/0=a", "", api.Broken},
		{"an unknown choice", events(a, choice(1, `{"content":"c"}`, "null"), stop), 1, "0/0=a", "", api.Broken},
		{"a negative choice", events(choice(-1, `{"content":"c"}`, "null"), stop), 1, "", "", api.Broken},
		{"arguments without a name", events(choice(0, `{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}`, "null"), stop), 1, "", "", api.Broken},
		{"a name that changes", events(
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f"}}]}`, "null"),
			choice(0, `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"g"}}]}`, "tool_calls")), 1, `0/3/0=f`, "", api.Broken},
		{"abort", events(a, choice(0, `{}`, "abort"), done), 1, "0/0=a", "", api.Failed},
		{"an error", events(a, `{"error":{"message":"boom","type":"server_error","code":500}}`, done), 1, "0/0=a", "", api.Failed},
		{"an error as text", events(a, `{"error":"boom"}`, done), 1, "0/0=a", "", api.Failed},
		{"an error of the older form", events(a, `{"object":"error","message":"boom","code":500}`, done), 1, "0/0=a", "", api.Failed},
		{"an error in a field of its own", events(a) + "error: {\"message\":\"boom\",\"code\":500}\n\n", 1, "0/0=a", "", api.Failed},
		{"an error of the caller", events(a, `{"error":{"message":"no","code":400}}`, done), 1, "0/0=a", "", api.Rejected},
		{"an error of type", events(a, `{"error":{"message":"no","type":"BadRequestError","code":null}}`), 1, "0/0=a", "", api.Rejected},
		{"an error of the server's, by any type", events(a, `{"error":{"message":"no","type":"invalid_request_error","code":500}}`), 1, "0/0=a", "", api.Failed},
		{"a limit", events(a, `{"error":{"message":"no","code":"rate_limit_exceeded"}}`), 1, "0/0=a", "", api.Busy},
		{"a key", events(a, `{"error":{"message":"no","code":401}}`), 1, "0/0=a", "", api.Denied},
		{"no error", events(strings.Replace(a, `"error":null`, `"error":""`, 1), stop), 1, "0/0=a", "stop", ""},
		{"too long a context", events(`{"error":{"message":"no","code":"context_length_exceeded"}}`), 1, "", "", api.Rejected},
		{"a filter", events(a, `{"error":{"message":"no","type":"content_filter","code":null}}`), 1, "0/0=a", "", api.Rejected},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := read(saying(t, api.OpenAI, c.stream).Generate(t.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`), Choices: c.choices}))
			parts := []string{}
			for key, text := range got.bytes {
				parts = append(parts, key+"="+text)
			}
			slices.Sort(parts)
			if strings.Join(parts, " ") != c.want {
				t.Errorf("got %.200q, want %.200q", parts, c.want)
			}
			if got.finish.Reason != c.reason || faultOf(got.end) != c.fault {
				t.Errorf("it ends with %v, want %q or %q", got.end, c.reason, c.fault)
			}
		})
	}
}

// b0 is the end of a choice.
func b0(index int) string { return choice(index, `{}`, "length") }

func TestUsageAndLogprobs(t *testing.T) {
	logprobs := `{"content":[{"token":"a","logprob":-0.5}]}`
	withLogprobs := strings.Replace(a, `"logprobs":null`, `"logprobs":`+logprobs, 1)
	got := read(saying(t, api.OpenAI, events(withLogprobs, b, stop, usageChunk, done)).Generate(t.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`)}))
	if want := (engine.Usage{Prompt: 3, Completion: 9, Cached: 2, Reasoning: 4}); got.finish.Usage != want {
		t.Errorf("usage is %+v", got.finish.Usage)
	}
	if string(got.deltas[0].Logprobs) != logprobs || got.deltas[1].Logprobs != nil {
		t.Errorf("logprobs are %s and %s", got.deltas[0].Logprobs, got.deltas[1].Logprobs)
	}
	got = read(saying(t, api.OpenAI, events(a, b, stop, done)).Generate(t.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`)}))
	if got.finish.Usage.Completion != 2 {
		t.Errorf("without usage it is %+v", got.finish.Usage)
	}
}

// TestUsageThatDoesNotCome: of a server that has told usages before, an answer that breaks off before its usage is not complete; of one
// that tells none, it is, and so is one whose ids were all told.
func TestUsageThatDoesNotCome(t *testing.T) {
	withIDs := strings.Replace(strings.Replace(a, `"index":0`, `"index":0,"token_ids":[7]`, 1), `{"id"`, `{"prompt_token_ids":[1,2],"id"`, 1)
	next := ""
	s := answering(t, api.OpenAI, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, next) //nolint:errcheck // a client that has gone is told nothing
	})
	for _, step := range []struct {
		answer   string
		complete bool
	}{
		{events(a, stop), true},
		{events(a, stop, usageChunk), true},
		{events(a, stop, done), true},
		{events(a, stop), false},
		{events(a, stop) + "data: {", false},
		{events(withIDs, stop), true},
	} {
		next = step.answer
		got := read(s.Generate(t.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`)}))
		if complete := got.finish.Reason == engine.Stop; complete != step.complete {
			t.Errorf("%q: %v", step.answer, got.end)
		}
		if e := (*api.Error)(nil); errors.As(got.end, &e) && (e.Fault != api.Broken || e.Complete == nil || e.Complete.Usage.Completion != 1) {
			t.Errorf("%q: %+v", step.answer, e)
		}
	}
}

func TestTokenIDs(t *testing.T) {
	stream := events(
		`{"prompt_token_ids":[1,2,3],"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{"content":"ab"},"finish_reason":null,"token_ids":[4,5]}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":null,"token_ids":[6]}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop","token_ids":[7]}]}`,
	)
	s, err := saying(t, api.VLLM, stream).Generate(t.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err != nil || s.PromptTokens() != 3 {
		t.Errorf("the prompt has %d tokens, %v", s.PromptTokens(), err)
	}
	got := read(s, nil)
	if len(got.deltas) != 3 || !slices.Equal(got.ids, []uint32{6, 7}) || got.tokens != 2 || got.deltas[2].Tokens != 0 {
		t.Errorf("%+v", got.deltas)
	}
}

func TestNativeStreams(t *testing.T) {
	one := `{"index":0,"content":"a","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":3}`
	emoji := `{"index":0,"content":"é","tokens":[9],"stop":false,"tokens_predicted":3,"tokens_evaluated":3}`
	end := func(how string) string {
		return `{"index":0,"content":"","tokens":[],"stop":true,"tokens_predicted":3,"tokens_evaluated":3,` + how + `}`
	}
	cases := []struct {
		stream, reason string
		fault          api.Fault
	}{
		{events(one, emoji, end(`"stop_type":"eos"`)), "stop", ""},
		{events(one, emoji, end(`"stop_type":"word"`)), "stop", ""},
		{events(one, emoji, end(`"stop_type":"limit"`)), "length", ""},
		{events(one, emoji, end(`"stopped_eos":true`)), "stop", ""},
		{events(one, emoji, end(`"stopped_limit":true`), done), "length", ""},
		{events(one, emoji, end(`"stop_type":"none"`)), "", api.Broken},
		{events(one, emoji), "", api.Broken},
		{events(one, emoji, done), "", api.Broken},
		{events(one, emoji, `{"error":{"code":500,"message":"boom"}}`), "", api.Failed},
		{events(one, emoji, "{"), "", api.Broken},
	}
	for _, c := range cases {
		got := read(saying(t, api.LlamaCPP, c.stream).Generate(t.Context(), api.Call{Prompt: "x", MaxTokens: 3}))
		if got.finish.Reason != c.reason || faultOf(got.end) != c.fault || got.bytes[content] != "aé" {
			t.Errorf("%s: %q, %v", c.stream, got.bytes, got.end)
		}
		if c.reason != "" && got.finish.Usage != (engine.Usage{Prompt: 3, Completion: 3}) {
			t.Errorf("usage is %+v", got.finish.Usage)
		}
		if d := got.deltas[1]; d.IDs != nil || d.Tokens != 2 {
			t.Errorf("a character of several tokens is %+v", d)
		}
	}
}

func TestStatuses(t *testing.T) {
	cases := []struct {
		status       int
		header, body string
		fault        api.Fault
		after        time.Duration
	}{
		{400, "", `{"error":{"message":"no","type":"invalid_request_error"}}`, api.Rejected, 0},
		{413, "", `too large`, api.Rejected, 0},
		{422, "", `{"detail":[{"msg":"no"}]}`, api.Rejected, 0},
		{500, "", `{"error":{"message":"no","code":"context_length_exceeded"}}`, api.Rejected, 0},
		{500, "", `{"error":{"message":"the request exceeds the available context size"}}`, api.Rejected, 0},
		{401, "", `{"error":"no"}`, api.Denied, 0},
		{403, "", `{"error":"no"}`, api.Denied, 0},
		{404, "", `{"error":{"message":"The model does not exist","type":"NotFoundError"}}`, api.Denied, 0},
		{301, "Location: http://192.0.2.1/", ``, api.Denied, 0},
		{307, "Location: /v2/chat/completions", ``, api.Denied, 0},
		{408, "", ``, api.Busy, 0},
		{429, "Retry-After: 7", `{}`, api.Busy, 7 * time.Second},
		{429, "Retry-After-Ms: 250", `{}`, api.Busy, 250 * time.Millisecond},
		{429, "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT", `{}`, api.Busy, 0},
		{503, "", `{"error":{"message":"server busy, please try again. maximum pending requests exceeded"}}`, api.Busy, 0},
		{503, "Retry-After: 1.5", `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`, api.Gone, 1500 * time.Millisecond},
		{502, "", `<html>`, api.Gone, 0},
		{504, "", ``, api.Gone, 0},
		{500, "", `{"error":{"message":"boom"}}`, api.Failed, 0},
		{599, "", ``, api.Failed, 0},
	}
	for _, c := range cases {
		s := answering(t, api.OpenAI, func(w http.ResponseWriter, _ *http.Request) {
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body) //nolint:errcheck // as above
		})
		_, err := s.Generate(t.Context(), api.Call{Prompt: "x"})
		e := (*api.Error)(nil)
		if !errors.As(err, &e) || e.Fault != c.fault || e.Status != c.status || e.After != c.after || e.Message == "" {
			t.Errorf("%d %s %s: %#v", c.status, c.header, c.body, err)
			continue
		}
		if json.Valid([]byte(c.body)) != (string(e.Document) == c.body && c.body != "") {
			t.Errorf("%d: the document is %q", c.status, e.Document)
		}
	}
}

func TestRetryAfterDate(t *testing.T) {
	s := answering(t, api.OpenAI, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, err := s.Generate(t.Context(), api.Call{Prompt: "x"})
	if e := (*api.Error)(nil); !errors.As(err, &e) || e.After < 59*time.Minute || e.After > time.Hour {
		t.Errorf("%#v", err)
	}
}

func TestAnswerThatIsNoStream(t *testing.T) {
	for body, want := range map[string]api.Fault{`{"error":{"message":"boom"}}`: api.Failed, `{"choices":[]}`: api.Broken} {
		s := answering(t, api.OpenAI, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			io.WriteString(w, body) //nolint:errcheck // as above
		})
		if _, err := s.Generate(t.Context(), api.Call{Prompt: "x"}); faultOf(err) != want {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// What is not read has a bound, and a server's words do not have the key.
func TestErrorBody(t *testing.T) {
	const key = "sk-secret"
	cut := make(chan bool, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `{"error":"%s %s"}`, r.Header.Get("Authorization"), strings.Repeat("x", 100))
		if r.URL.Path == "/v1/models" {
			_, err := io.WriteString(w, strings.Repeat(" ", 64<<20))
			cut <- err != nil
		}
	}))
	t.Cleanup(server.Close)
	s := connect(t, api.Config{URL: server.URL, Kind: api.OpenAI, Key: func() (string, error) { return key + "\n", nil }})
	_, large := s.Identify(t.Context())
	_, small := s.Generate(t.Context(), api.Call{Prompt: "x"})
	if !<-cut {
		t.Error("all of a large error is read")
	}
	for _, err := range []error{large, small} {
		e := (*api.Error)(nil)
		if !errors.As(err, &e) || strings.Contains(e.Error()+string(e.Document), key) || len(e.Message) > 1000 || len(e.Document) > 8<<10 {
			t.Errorf("%.2000s", fmt.Sprintf("%#v", err))
		}
	}
}

func TestConnections(t *testing.T) {
	opened := atomic.Int32{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range []string{a, stop, done} {
			io.WriteString(w, events(event)) //nolint:errcheck // as above
			w.(http.Flusher).Flush()
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	s := connect(t, api.Config{URL: server.URL, Kind: api.OpenAI})
	for range 5 {
		if got := read(s.Generate(t.Context(), api.Call{Prompt: "x"})); got.finish.Reason == "" {
			t.Fatal(got.end)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("5 streams after each other took %d connections", n)
	}
	server.CloseClientConnections() // as a server does that was idle for too long
	if got := read(s.Generate(t.Context(), api.Call{Prompt: "x"})); got.finish.Reason == "" {
		t.Errorf("after its connection was closed: %v", got.end)
	}
	server.Close()
	if _, err := s.Generate(t.Context(), api.Call{Prompt: "x"}); faultOf(err) != api.Gone {
		t.Errorf("a server that is not there is %v", err)
	}
}

func TestNew(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:8000": true, "https://host/v1": true, "http://host/path/v1/": true,
		"": false, "127.0.0.1:8000": false, "ftp://host": false, "http://": false, "http://u:secret@host": false, "http://host?key=secret": false,
		"http://ho st\x7f": false,
	} {
		_, err := api.New(api.Config{URL: url})
		if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "u:secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := api.New(api.Config{URL: "http://host", Kind: "other"}); err == nil {
		t.Error("an unknown kind is taken")
	}
}
