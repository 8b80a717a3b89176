package probe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/simtest"
)

// serve runs a scripted server, and returns what asks it, and its model's name.
func serve(t *testing.T, kind servertest.Kind, options servertest.Options) (*servertest.Server, *api.Server, string) {
	t.Helper()
	scripted := servertest.New(kind, options)
	server, model := connect(t, api.Config{URL: scripted.Listen(t), Kind: api.Kind(kind)})
	return scripted, server, model
}

// connect returns what asks a server, and its model's name.
func connect(t *testing.T, cfg api.Config) (*api.Server, string) {
	t.Helper()
	server, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	id, err := server.Identify(t.Context())
	if err != nil || len(id.Models) == 0 {
		t.Fatalf("%+v, %v", id, err)
	}
	return server, id.Models[0].Name
}

// simulated is serve on a simulated network, in a bubble.
func simulated(t *testing.T, options servertest.Options, test func(t *testing.T, scripted *servertest.Server, server *api.Server, model string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := simtest.New(1, simtest.Options{})
		t.Cleanup(network.Close)
		host, scripted := network.Host("server"), servertest.New(servertest.VLLM, options)
		if err := scripted.Serve(func() (net.Listener, error) { return host.ListenStream(":8000") }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(scripted.Close)
		server, model := connect(t, api.Config{
			URL: "http://server:8000", Kind: api.VLLM,
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) { return host.DialStream(ctx, address) },
		})
		test(t, scripted, server, model)
	})
}

// altered runs a scripted server whose requests and events are changed on their way.
func altered(t *testing.T, options servertest.Options, request, event func(text string) string) (*api.Server, string) {
	t.Helper()
	scripted := servertest.New(servertest.VLLM, options)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		text := request(string(body))
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		scripted.ServeHTTP(alteredEvents{w, event}, r)
	}))
	t.Cleanup(front.Close)
	return connect(t, api.Config{URL: front.URL, Kind: api.VLLM})
}

// alteredEvents changes what is written.
type alteredEvents struct {
	http.ResponseWriter
	event func(string) string
}

func (w alteredEvents) Write(b []byte) (int, error) {
	if _, err := w.ResponseWriter.Write([]byte(w.event(string(b)))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Unwrap is for http.ResponseController.
func (w alteredEvents) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func asItIs(text string) string { return text }

var prompts = regexp.MustCompile(`("prompt":"[^"]*)"`)

// asking adds directives to all prompts.
func asking(directives string) func(text string) string {
	return func(text string) string { return prompts.ReplaceAllString(text, "$1 "+directives+`"`) }
}

// TestMeasure: what is found is what the server does, whatever its kind could.
func TestMeasure(t *testing.T) {
	for name, c := range map[string]struct {
		kind    servertest.Kind
		options servertest.Options
		want    probe.Abilities
		seen    string
	}{
		"a sampler by position": {
			servertest.VLLM,
			servertest.Options{},
			probe.Abilities{Class: probe.Exact, Repeats: true, RepeatsBusy: true, Continues: true, ContinuesBusy: true, Greedy: true},
			"again: the same; by ids: the same; greedy by ids: the same; again beside others: the same; by ids beside others: the same",
		},
		"SGLang": {
			servertest.SGLang,
			servertest.Options{},
			probe.Abilities{Class: probe.Exact, Repeats: true, RepeatsBusy: true, Continues: true, ContinuesBusy: true, Greedy: true},
			"by ids beside others: the same",
		},
		"a sampler with a state": {
			servertest.VLLM,
			servertest.Options{Sampler: servertest.StateKeyed},
			probe.Abilities{Class: probe.Replayable, Repeats: true, RepeatsBusy: true, Greedy: true},
			"by ids: differs after",
		},
		"alone the same, not beside others": {
			servertest.VLLM,
			servertest.Options{BatchDependent: true, TokenInterval: time.Millisecond},
			probe.Abilities{Class: probe.IDs, Repeats: true, Continues: true, Greedy: true},
			"again beside others: differs after",
		},
		"no ids": {
			servertest.VLLM,
			servertest.Options{NoTokenIDs: true},
			probe.Abilities{Class: probe.Replayable, Repeats: true, RepeatsBusy: true},
			"by ids: the server tells no ids, or takes none",
		},
		"Ollama": {
			servertest.Ollama,
			servertest.Options{},
			probe.Abilities{Class: probe.Replayable, Repeats: true, RepeatsBusy: true},
			"by ids: the server tells no ids, or takes none",
		},
		"any other": {
			servertest.OpenAI,
			servertest.Options{BatchDependent: true, TokenInterval: time.Millisecond},
			probe.Abilities{Class: probe.Text, Repeats: true},
			"again beside others: differs after",
		},
	} {
		t.Run(name, func(t *testing.T) {
			scripted, server, model := serve(t, c.kind, c.options)
			before := scripted.Tokens()
			got, err := probe.Measure(t.Context(), server, model)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.Seen, c.seen) {
				t.Errorf("seen: %s", got.Seen)
			}
			if took := scripted.Tokens() - before; took > 500 || got.Tokens == 0 || got.Tokens > 500 || got.Measured.IsZero() {
				t.Errorf("it took %d tokens, by its own count %d, at %v", took, got.Tokens, got.Measured)
			}
			got.Seen, got.Tokens, got.Measured = "", 0, time.Time{}
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestNeverTheSame: a seed that means nothing makes a text that cannot be repeated.
func TestNeverTheSame(t *testing.T) {
	scripted, server, model := serve(t, servertest.OpenAI, servertest.Options{})
	scripted.Fail(servertest.Fault{Kind: servertest.Diverge, At: 5, Skip: 1})
	got, err := probe.Measure(t.Context(), server, model)
	if err != nil || got.Class != probe.Text || got.Repeats || !strings.Contains(got.Seen, "again: differs after") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestFails: an error of the server is no finding.
func TestFails(t *testing.T) {
	for name, c := range map[string]struct {
		skip int
		kind servertest.FaultKind
		want api.Fault
	}{
		"at the first text":   {0, servertest.Unavailable, api.Gone},
		"at the second":       {1, servertest.TooManyRequests, api.Busy},
		"in the middle of it": {1, servertest.SilentEnd, api.Broken},
	} {
		t.Run(name, func(t *testing.T) {
			scripted, server, model := serve(t, servertest.SGLang, servertest.Options{})
			scripted.Fail(servertest.Fault{Kind: c.kind, At: 3, Skip: c.skip})
			got, err := probe.Measure(t.Context(), server, model)
			if why := (*api.Error)(nil); !errors.As(err, &why) || why.Fault != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if got.Class != probe.Text || (got.Tokens > 0) != (c.skip > 0) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestEndsWithItsContext: a server that hangs, with one text and with four, is not waited for, and has nothing to do afterwards.
func TestEndsWithItsContext(t *testing.T) {
	for skip, running := range map[int]int{0: 1, 5: 3} {
		simulated(t, servertest.Options{}, func(t *testing.T, scripted *servertest.Server, server *api.Server, model string) {
			scripted.Fail(servertest.Fault{Kind: servertest.Silence, At: 2, Skip: skip, Times: servertest.Forever})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			time.AfterFunc(30*time.Second, func() {
				if n := scripted.Running(); n < running {
					t.Errorf("%d requests hang, want %d", n, running)
				}
			})
			got, err := probe.Measure(ctx, server, model)
			if !errors.Is(err, context.DeadlineExceeded) || got.Repeats != (skip > 0) || got.RepeatsBusy {
				t.Errorf("got %+v, %v", got, err)
			}
			time.Sleep(time.Second) // until the server has noticed
			if n := scripted.Running(); n != 0 {
				t.Errorf("%d requests run on", n)
			}
		})
	}
}

// TestRefusesToContinue: that ids are not taken is a finding.
func TestRefusesToContinue(t *testing.T) {
	scripted, server, model := serve(t, servertest.VLLM, servertest.Options{})
	scripted.Fail(servertest.Fault{
		Kind: servertest.RefusePrefill, Times: servertest.Forever, Match: func(r servertest.Request) bool { return r.Continues },
	})
	got, err := probe.Measure(t.Context(), server, model)
	if err != nil || got.Class != probe.Replayable || got.Continues || got.Greedy || !strings.Contains(got.Seen, "by ids: refused") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestOnlyChats: a server that has no completions is tried by chat.
func TestOnlyChats(t *testing.T) {
	scripted, server, model := serve(t, servertest.OpenAI, servertest.Options{})
	scripted.Fail(servertest.Fault{
		Kind: servertest.FilteredPrompt, Times: servertest.Forever,
		Match: func(r servertest.Request) bool { return r.Path == "/v1/completions" },
	})
	got, err := probe.Measure(t.Context(), server, model)
	if err != nil || got.Class != probe.Replayable {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestShort: a text of a few tokens that comes again proves nothing; one that is a little longer is cut in its middle.
func TestShort(t *testing.T) {
	for length, want := range map[int]probe.Class{3: probe.Text, 6: probe.Text, 12: probe.Exact} {
		server, model := altered(t, servertest.Options{}, asking(fmt.Sprintf("[[length %d]]", length)), asItIs)
		got, err := probe.Measure(t.Context(), server, model)
		if err != nil || got.Class != want || got.Repeats != (want == probe.Exact) || strings.Contains(got.Seen, "too short") != (want == probe.Text) {
			t.Errorf("%d tokens: got %+v, %v", length, got, err)
		}
	}
}

// others are the requests beside which something is measured.
var others = regexp.MustCompile(`"prompt":"[2-7]\. `)

// TestOthersAreThere: what is measured beside others begins when these have begun, however long that takes.
func TestOthersAreThere(t *testing.T) {
	options := servertest.Options{BatchDependent: true, TokenInterval: time.Millisecond}
	simulated(t, options, func(t *testing.T, scripted *servertest.Server, server *api.Server, model string) {
		scripted.Fail(servertest.Fault{
			Kind: servertest.SlowFirstToken, Delay: time.Minute, Times: servertest.Forever,
			Match: func(r servertest.Request) bool { return others.Match(r.Body) },
		})
		got, err := probe.Measure(t.Context(), server, model)
		if err != nil || got.Class != probe.IDs || !got.Repeats || got.RepeatsBusy || !got.Continues || got.ContinuesBusy {
			t.Errorf("got %+v, %v", got, err)
		}
		var came time.Time // the others
		for _, r := range scripted.Requests() {
			isOther := others.Match(r.Body)
			if isOther && came.IsZero() {
				came = r.When
			}
			if !isOther && !came.IsZero() {
				if waited := r.When.Sub(came); waited < time.Minute {
					t.Errorf("the first one beside others came %v after these, who have no token yet", waited)
				}
				break
			}
		}
	})
}

// TestOtherTokens: the same text of other tokens is not the same.
func TestOtherTokens(t *testing.T) {
	var texts atomic.Int64
	request := func(text string) string {
		if strings.Contains(text, `"stream":true`) {
			texts.Add(1)
		}
		return text
	}
	server, model := altered(t, servertest.Options{}, request, func(text string) string {
		if texts.Load() != 3 { // what it is, the first text, and that again
			return text
		}
		return strings.Replace(text, `"token_ids":[`, `"token_ids":[1`, 1)
	})
	got, err := probe.Measure(t.Context(), server, model)
	if err != nil || got.Repeats || !got.Continues || !strings.Contains(got.Seen, "again: the same text of other tokens") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestCharactersOfSeveralTokens are not cut.
func TestCharactersOfSeveralTokens(t *testing.T) {
	for _, weights := range []string{"a", "b", "c", "d", "e", "f"} {
		server, model := altered(t, servertest.Options{Weights: weights}, asking("[[length 40]] [[emoji]]"), asItIs)
		if got, err := probe.Measure(t.Context(), server, model); err != nil || got.Class != probe.Exact {
			t.Errorf("%s: got %+v, %v", weights, got, err)
		}
	}
}
