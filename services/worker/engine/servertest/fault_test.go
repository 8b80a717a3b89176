package servertest_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// The events of a whole stream, the last of them [DONE], and what it says.
func wholeStream(c *client) (read, object) {
	request := c.chat("hello [[length 6]]")
	r := c.stream(chatPath, request)
	return r, request
}

func TestFaultsAtEveryEvent(t *testing.T) {
	type check func(r, whole read, at int) bool
	ended := func(clean bool) check { // after at events
		return func(r, _ read, at int) bool { return len(r.events) == at && !r.done && isReset(r.err) != clean }
	}
	half := func(clean bool) check {
		return func(r, whole read, at int) bool {
			return ended(clean)(r, whole, at) && strings.HasPrefix(r.openTail, "data") || at == 0 && !clean && isReset(r.err)
		}
	}
	reason := func(wanted string) check {
		return func(r, whole read, at int) bool {
			beyond := at >= len(whole.events)-1 // behind the finish, which has been sent
			return r.done && r.err == nil && (r.finish(0) == wanted || beyond)
		}
	}
	faults := map[servertest.FaultKind]check{
		servertest.Reset:     ended(false),
		servertest.CutEvent:  half(false),
		servertest.HalfEvent: half(true),
		servertest.SilentEnd: func(r, whole read, at int) bool {
			return !r.done && r.err == nil && (len(r.events) == at || len(r.events) == at+1 && r.events[at]["model"] == "")
		},
		servertest.Garbage: func(r, whole read, at int) bool {
			return r.garbage == 1 && r.err == nil && (len(r.events) == len(whole.events)-1 || !r.done)
		},
		servertest.Duplicate: func(r, whole read, at int) bool {
			twice := len(r.events) == len(whole.events)+1 && fmt.Sprint(r.events[at-1]) == fmt.Sprint(r.events[at])
			return at == 0 || twice && r.done
		},
		servertest.ErrorEvent: func(r, _ read, at int) bool {
			return len(r.events) == at+1 && field(r.events[at], "error", "message") != nil && r.err == nil
		},
		servertest.Stall:         func(r, whole read, _ int) bool { return len(r.events) == len(whole.events) && r.done },
		servertest.Aborted:       reason("abort"),
		servertest.ContentFilter: reason("content_filter"),
	}
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		whole, request := wholeStream(c)
		for fault, holds := range faults {
			for at := range len(whole.events) + 1 {
				c.server.Fail(servertest.Fault{Kind: fault, At: at, Delay: time.Microsecond})
				r := c.stream(chatPath, request)
				if !holds(r, whole, at) {
					t.Errorf("%v at %d: error %v, done %v, garbage %d, %d events\n%s", fault, at, r.err, r.done, r.garbage, len(r.events), r.raw)
				}
				c.server.Heal()
			}
		}
		if r := c.stream(chatPath, request); len(r.events) != len(whole.events) {
			t.Error("a fault is left")
		}
	})
}

func TestErrorsInStreamsAreFollowedByDone(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		c.server.Fail(servertest.Fault{Kind: servertest.ErrorEvent, At: 3})
		r := c.stream(chatPath, c.chat("hello"))
		if want := kind == servertest.VLLM || kind == servertest.SGLang; r.status != http.StatusOK || r.done != want || r.finish(0) != "" {
			t.Errorf("status %d, done %v, finish %q", r.status, r.done, r.finish(0))
		}
	})
}

func TestFaultsOfWholeStreams(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		whole, request := wholeStream(c)
		hit := func(fault servertest.Fault) read {
			c.server.Fail(fault)
			return c.stream(chatPath, request)
		}
		if r := hit(servertest.Fault{Kind: servertest.NoDone}); r.done || r.finish(0) != "stop" || r.err != nil {
			t.Errorf("without [DONE]: done %v, finish %q", r.done, r.finish(0))
		}
		if r := hit(servertest.Fault{Kind: servertest.NoFinish}); !r.done || r.finish(0) != "" || len(r.events) != len(whole.events) {
			t.Errorf("without finish: done %v, finish %q", r.done, r.finish(0))
		}
		r := hit(servertest.Fault{Kind: servertest.NullErrors})
		if _, null := r.events[0]["error"]; !null || r.text(0, "content") != whole.text(0, "content") {
			t.Errorf("null errors: %v", r.events[0])
		}
		r = hit(servertest.Fault{Kind: servertest.Diverge, At: 3})
		same, text := whole.text(0, "content"), r.text(0, "content")
		if text == same || text[:3] != same[:3] || r.finish(0) != "stop" {
			t.Errorf("divergent %q, else %q", text, same)
		}
	})
}

func TestSilence(t *testing.T) {
	for _, fault := range []servertest.Fault{{Kind: servertest.Silence, At: 4}, {Kind: servertest.SilentBefore}} {
		c := start(t, servertest.VLLM, servertest.Options{})
		c.server.Fail(fault)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+chatPath, strings.NewReader(
			`{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for len(c.server.Requests()) == 0 {
				time.Sleep(time.Millisecond) // there is nothing to wait for; cancelling early is as good
			}
			cancel()
		}()
		response, err := c.http.Do(r)
		if err != nil {
			continue
		}
		got := readStream(response)
		response.Body.Close()
		if got.err == nil || got.done {
			t.Errorf("a silent stream ends: %v", got)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{})
		cases := []struct {
			fault  servertest.FaultKind
			status int
			says   string // in the body; all kinds have it
		}{
			{servertest.TooManyRequests, 429, "requests"},
			{servertest.InternalError, 500, "issue"},
			{servertest.Unavailable, 503, "unavailable"},
			{servertest.FilteredPrompt, 400, "filtered"},
		}
		for _, tt := range cases {
			c.server.Fail(servertest.Fault{Kind: tt.fault, Delay: 1500 * time.Millisecond})
			response := c.post(chatPath, c.chat("hello"))
			after, answer := response.Header.Get("Retry-After"), fmt.Sprint(c.decode(response))
			if response.StatusCode != tt.status || !strings.Contains(answer, tt.says) {
				t.Errorf("status %d, body %s", response.StatusCode, answer)
			}
			if limited := tt.status == 429 || tt.status == 503; limited != (after == "2") {
				t.Errorf("%d: Retry-After %q", tt.status, after)
			}
		}
		c.server.Fail(servertest.Fault{Kind: servertest.TooManyRequests})
		response := c.post(chatPath, c.chat("hello"))
		response.Body.Close()
		if response.Header.Get("Retry-After") != "" {
			t.Error("Retry-After without a delay")
		}
		c.server.Fail(servertest.Fault{Kind: servertest.ResetBefore})
		if r := c.stream(chatPath, c.chat("hello")); r.status != 0 || r.err == nil {
			t.Error("no reset")
		}
		if r := c.stream(chatPath, c.chat("hello")); !r.done {
			t.Error("the server has not recovered")
		}
	})
}

func TestPromptsBeyondTheContext(t *testing.T) {
	says := map[servertest.Kind][]any{
		servertest.VLLM:     {"error", "code", 400.0},
		servertest.SGLang:   {"object", "error"},
		servertest.LlamaCPP: {"error", "type", "exceed_context_size_error"},
		servertest.Ollama:   {"error", "message", "the input length exceeds the context length"},
		servertest.OpenAI:   {"error", "code", "context_length_exceeded"},
	}
	allKinds(t, func(t *testing.T, kind servertest.Kind) {
		c := start(t, kind, servertest.Options{ContextLength: 64})
		path, want := says[kind][:len(says[kind])-1], says[kind][len(says[kind])-1]
		status, answer := c.json(chatPath, c.chat(strings.Repeat("hello ", 80)))
		if status != 400 || field(answer, path...) != want {
			t.Errorf("status %d, body %v", status, answer)
		}
		c.server.Fail(servertest.Fault{Kind: servertest.ContextTooLong})
		if status, faulted := c.json(chatPath, c.chat("hello")); status != 400 || field(faulted, path...) != want {
			t.Errorf("fault: status %d, body %v", status, faulted)
		}
	})
}

func TestRefusedContinuations(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	c.server.Fail(servertest.Fault{Kind: servertest.RefusePrefill, Times: servertest.Forever})
	if r := c.stream(chatPath, c.chat("hello")); r.status != 200 {
		t.Errorf("a new chat: status %d", r.status)
	}
	if r := c.complete([]int{300, 301}, greedy); r.status != 400 {
		t.Errorf("ids: status %d", r.status)
	}
	request := c.with(c.chat(""), object{
		"messages":               []object{{"role": "user", "content": "hello"}, {"role": "assistant", "content": "I"}},
		"continue_final_message": true, "add_generation_prompt": false,
	})
	if r := c.stream(chatPath, request); r.status != 400 {
		t.Errorf("a trailing message: status %d", r.status)
	}
}

func TestServersFlap(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	c.server.Fail(servertest.Fault{Kind: servertest.InternalError, Skip: 1, Times: 2, Good: 3})
	var seen strings.Builder
	for range 12 {
		r := c.stream(chatPath, c.with(c.chat("hello"), object{"max_tokens": 1}))
		seen.WriteString(map[bool]string{true: "+", false: "-"}[r.status == 200])
	}
	if seen.String() != "+--+++--+++-" {
		t.Errorf("seen %s", seen.String())
	}
}

func TestFaultsHitWhatTheyMatch(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	c.server.Fail(servertest.Fault{
		Kind: servertest.InternalError, Times: servertest.Forever,
		Match: func(r servertest.Request) bool { return strings.Contains(string(r.Body), "poison") },
	})
	good, bad := c.stream(chatPath, c.chat("hello")), c.stream(chatPath, c.chat("poison"))
	if good.status != 200 || bad.status != 500 {
		t.Errorf("status %d and %d", good.status, bad.status)
	}
}

func TestFaultsOfAnswersThatAreNoStreams(t *testing.T) {
	c := start(t, servertest.SGLang, servertest.Options{})
	request := c.with(c.chat("hello"), object{"stream": false})
	for _, kind := range []servertest.FaultKind{servertest.Reset, servertest.HalfEvent, servertest.Garbage} {
		c.server.Fail(servertest.Fault{Kind: kind})
		response, err := c.send(chatPath, request)
		if err != nil {
			continue // reset
		}
		got := readStream(response)
		response.Body.Close()
		if kind == servertest.Reset || strings.HasSuffix(got.raw, "}") {
			t.Errorf("%v: %q", kind, got.raw)
		}
	}
	c.server.Fail(servertest.Fault{Kind: servertest.Aborted})
	if _, answer := c.json(chatPath, request); field(answer, "choices", 0, "finish_reason") != "abort" {
		t.Errorf("answer %v", answer)
	}
}
