package probe_test

import (
	"context"
	"errors"
	"net"
	"strings"
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
	server, err := api.New(api.Config{URL: scripted.Listen(t), Kind: api.Kind(kind)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	id, err := server.Identify(t.Context())
	if err != nil || len(id.Models) == 0 {
		t.Fatalf("%+v, %v", id, err)
	}
	return scripted, server, id.Models[0].Name
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
		synctest.Test(t, func(t *testing.T) {
			network := simtest.New(1, simtest.Options{})
			defer network.Close()
			host := network.Host("server")
			scripted := servertest.New(servertest.VLLM, servertest.Options{})
			if err := scripted.Serve(func() (net.Listener, error) { return host.ListenStream(":8000") }); err != nil {
				t.Fatal(err)
			}
			defer scripted.Close()
			server, err := api.New(api.Config{
				URL: "http://server:8000", Kind: api.VLLM,
				Dial: func(ctx context.Context, _, address string) (net.Conn, error) { return host.DialStream(ctx, address) },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			id, err := server.Identify(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			scripted.Fail(servertest.Fault{Kind: servertest.Silence, At: 2, Skip: skip, Times: servertest.Forever})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			time.AfterFunc(30*time.Second, func() {
				if n := scripted.Running(); n < running {
					t.Errorf("%d requests hang, want %d", n, running)
				}
			})
			got, err := probe.Measure(ctx, server, id.Models[0].Name)
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
