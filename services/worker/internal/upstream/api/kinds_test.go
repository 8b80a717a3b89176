package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

var kinds = []api.Kind{api.VLLM, api.SGLang, api.LlamaCPP, api.Ollama, api.OpenAI}

// allKinds runs a test against a scripted server of each kind.
func allKinds(t *testing.T, options servertest.Options, test func(t *testing.T, f *fixture)) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) { test(t, start(t, kind, options)) })
	}
}

// fixture is a scripted server, and what asks it.
type fixture struct {
	*api.Server
	kind     api.Kind
	scripted *servertest.Server
	url      string
	identity api.Identity
	model    string
}

func start(t *testing.T, kind api.Kind, options servertest.Options) *fixture {
	t.Helper()
	f := &fixture{kind: kind, scripted: servertest.New(servertest.Kind(kind), options)}
	f.url = f.scripted.Listen(t)
	f.Server = connect(t, api.Config{URL: f.url, Kind: kind, Key: keyOf(options.APIKey)})
	var err error
	if f.identity, err = f.Identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.model = f.identity.Models[0].Name
	return f
}

func keyOf(key string) func() (string, error) { return func() (string, error) { return key, nil } }

func connect(t *testing.T, cfg api.Config) *api.Server {
	t.Helper()
	s, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// text is what an answer came to.
type text struct {
	bytes  map[string]string // by choice, channel and tool call
	ids    []uint32          // of choice 0
	told   bool              // ids of all tokens were told
	tokens int
	deltas []api.Delta
	end    error
	finish engine.Finish
}

func read(s *api.Stream, err error) text {
	got := text{bytes: map[string]string{}, told: true, end: err}
	if err != nil {
		return got
	}
	defer s.Close()
	for {
		d, err := s.Next()
		if err != nil {
			got.end = err
			got.finish, _ = engine.Finished(err)
			return got
		}
		key := fmt.Sprintf("%d/%d", d.Choice, d.Channel)
		if d.Call != nil {
			key += fmt.Sprintf("/%d", d.Call.Index)
		}
		got.bytes[key] += string(d.Text)
		got.ids = append(got.ids, d.IDs...)
		got.told = got.told && d.Tokens == len(d.IDs)
		got.tokens += d.Tokens
		got.deltas = append(got.deltas, d)
	}
}

const content = "0/0"

func (f *fixture) chat(prompt string, more string) api.Call {
	body := fmt.Sprintf(`{"model":"theirs","temperature":0,"messages":[{"role":"user","content":%q}]%s}`, prompt, more)
	return api.Call{Model: f.model, API: wire.APIChat, Body: []byte(body), MaxTokens: 500, Seed: 7, Choices: 1}
}

func (f *fixture) prompt(text string) api.Call {
	body := fmt.Sprintf(`{"prompt":%q,"temperature":1}`, text)
	return api.Call{Model: f.model, API: wire.APICompletions, Body: []byte(body), MaxTokens: 500, Seed: 7, Choices: 1}
}

func TestGenerate(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		calls := map[string]api.Call{
			wire.APIChat: f.chat("hello [[length 30]] [[emoji]]", ""), wire.APICompletions: f.prompt("hello [[length 30]] [[emoji]]"),
		}
		for name, call := range calls {
			got := read(f.Generate(t.Context(), call))
			if got.finish.Reason != engine.Stop || got.bytes[content] == "" {
				t.Fatalf("%s: %v, %q", name, got.end, got.bytes)
			}
			usage := got.finish.Usage
			if usage.Prompt == 0 || usage.Completion < 30 {
				t.Errorf("%s: usage is %+v", name, usage)
			}
			// A character of several tokens comes in one chunk, whose ids llama.cpp does not all tell.
			if f.Features().IDs[name] && f.kind != api.LlamaCPP && (!got.told || len(got.ids) != usage.Completion) {
				t.Errorf("%s: %d ids, all: %v, usage is %+v", name, len(got.ids), got.told, usage)
			}
			if !f.Features().IDs[name] && len(got.ids) > 0 && f.kind != api.LlamaCPP {
				t.Errorf("%s: %d ids that Features does not promise", name, len(got.ids))
			}
			if again := read(f.Generate(t.Context(), call)); again.bytes[content] != got.bytes[content] {
				t.Errorf("%s: the seed is not passed on: %q and %q", name, again.bytes[content], got.bytes[content])
			}
		}
	})
}

func TestPromptAlone(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		call := api.Call{Model: f.model, Prompt: "one two [[length 40]]", MaxTokens: 12, Seed: 3, Choices: 1}
		got := read(f.Generate(t.Context(), call))
		if got.finish.Reason != engine.Length || got.finish.Usage.Completion != 12 {
			t.Fatalf("%v with %+v", got.end, got.finish.Usage)
		}
		whole := got.bytes[content]
		call.Stop = []string{whole[len(whole)/2 : len(whole)/2+3]}
		got = read(f.Generate(t.Context(), call))
		if got.finish.Reason != engine.Stop || strings.Contains(got.bytes[content], call.Stop[0]) {
			t.Errorf("%v: %q, to be stopped at %q", got.end, got.bytes[content], call.Stop[0])
		}
	})
}

func TestContinueByIDs(t *testing.T) {
	allKinds(t, servertest.Options{Sampler: servertest.PositionKeyed}, func(t *testing.T, f *fixture) {
		call := f.prompt("once upon a time [[length 40]]")
		if !f.Features().Prompt {
			call.IDs = []uint32{1, 2}
			if _, err := f.Generate(t.Context(), call); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("ids are taken, with %v", err)
			}
			if _, err := f.Tokenize(t.Context(), call); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("ids of a prompt are told, with %v", err)
			}
			return
		}
		prompt, err := f.Tokenize(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		whole := read(f.Generate(t.Context(), call))
		if whole.tokens < 40 || whole.finish.Usage.Prompt != len(prompt) || f.kind != api.LlamaCPP && !whole.told {
			t.Fatalf("%d tokens, all: %v, %v, prompt of %d", whole.tokens, whole.told, whole.finish, len(prompt))
		}
		begun := ""
		for i, d := range whole.deltas[:len(whole.deltas)-1] { // the last one may be the end itself
			begun += string(d.Text)
			if len(d.IDs) != d.Tokens {
				break // it cannot go on from here
			}
			next := call
			next.IDs = prompt
			for _, d := range whole.deltas[:i+1] {
				next.IDs = append(next.IDs[:len(next.IDs):len(next.IDs)], d.IDs...)
			}
			next.MaxTokens = 500 - i
			rest := read(f.Generate(t.Context(), next))
			same := begun+rest.bytes[content] == whole.bytes[content]
			if whole.told { // a cut within a character has the same ids, but no text of it
				same = slices.Equal(rest.ids, whole.ids[len(next.IDs)-len(prompt):])
			}
			if !same || rest.finish.Reason != whole.finish.Reason {
				t.Errorf("from %d on: %q, %v", i, rest.bytes[content], rest.end)
			}
			if err := f.Warm(t.Context(), next); err != nil {
				t.Errorf("warming: %v", err)
			}
		}
	})
}

func TestContinueChat(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		call := f.chat("tell me [[length 30]]", `,"max_completion_tokens":500,"min_tokens":20`)
		whole := read(f.Generate(t.Context(), call))
		if err := f.Warm(t.Context(), call); err != nil {
			t.Errorf("warming: %v", err)
		}
		if f.Features().Text[wire.APIChat] {
			next := call
			next.Text = []byte(whole.bytes[content][:len(whole.bytes[content])/2])
			rest := read(f.Generate(t.Context(), next))
			if rest.finish.Reason == "" || rest.bytes[content] == "" || strings.HasPrefix(rest.bytes[content], whole.bytes[content][:9]) {
				t.Errorf("as text it goes on with %q, %v", rest.bytes[content], rest.end)
			}
		}
		if !f.Features().IDs[wire.APIChat] {
			return
		}
		prompt, err := f.Tokenize(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		next := call
		next.IDs, next.MaxTokens = slices.Concat(prompt, whole.ids[:10]), 490
		rest := read(f.Generate(t.Context(), next))
		if !slices.Equal(rest.ids, whole.ids[10:]) {
			t.Errorf("by ids it goes on with %v instead of %v: %v", rest.ids, whole.ids[10:], rest.end)
		}
	})
}

func TestChannels(t *testing.T) {
	tools := `,"tools":[{"type":"function","function":{"name":"look","parameters":{}}},{"type":"function","function":{"name":"say","parameters":{}}}]`
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		got := read(f.Generate(t.Context(), f.chat("please [[think 12]] [[length 9]]", "")))
		if got.bytes["0/1"] == "" || got.bytes[content] == "" {
			t.Errorf("reasoning: %q, %v", got.bytes, got.end)
		}
		got = read(f.Generate(t.Context(), f.chat("please [[calls 2]]", tools)))
		if !strings.HasPrefix(got.bytes["0/3/0"], "look{") || !strings.HasPrefix(got.bytes["0/3/1"], "say{") {
			t.Errorf("tool calls: %q, %v", got.bytes, got.end)
		}
		if got.finish.Reason != engine.ToolCalls {
			t.Errorf("tool calls end with %v", got.end)
		}
		if f.kind == api.OpenAI {
			got = read(f.Generate(t.Context(), f.chat("please [[refuse]]", "")))
			if got.bytes["0/2"] == "" {
				t.Errorf("refusal: %q, %v", got.bytes, got.end)
			}
		}
	})
}

func TestChoices(t *testing.T) {
	for _, kind := range []api.Kind{api.VLLM, api.SGLang, api.OpenAI} {
		f := start(t, kind, servertest.Options{})
		call := f.chat("two of them [[length 20]]", `,"n":2`)
		call.Body = bytes.Replace(call.Body, []byte(`"temperature":0`), []byte(`"temperature":1`), 1)
		call.Choices = 2
		got := read(f.Generate(t.Context(), call))
		if got.bytes["0/0"] == "" || got.bytes["1/0"] == "" || len(got.finish.Reasons) != 2 {
			t.Errorf("%s: %q, %v, %v", kind, got.bytes, got.finish.Reasons, got.end)
		}
	}
}

func TestIdentify(t *testing.T) {
	allKinds(t, servertest.Options{Weights: "a"}, func(t *testing.T, f *fixture) {
		auto := connect(t, api.Config{URL: f.url + "/v1/", Kind: api.Auto})
		if features := auto.Features(); features.Prompt || features.Text != nil {
			t.Errorf("before it was asked: %+v", features)
		}
		got, err := auto.Identify(t.Context())
		if err != nil || got.Kind != f.kind {
			t.Fatalf("found %q, %v", got.Kind, err)
		}
		if f.kind != api.OpenAI && got.Version == "" {
			t.Error("no version")
		}
		if !strings.HasPrefix(got.Models[0].Fingerprint, string(f.kind)+":"+f.model) {
			t.Errorf("fingerprint %q", got.Models[0].Fingerprint)
		}
		equal := start(t, f.kind, servertest.Options{Weights: "a"})
		other := start(t, f.kind, servertest.Options{Weights: "b", Version: "b9999-other"}) // llama.cpp says nothing of weights
		if equal.identity.Models[0].Fingerprint != got.Models[0].Fingerprint {
			t.Errorf("equal servers: %q and %q", equal.identity.Models[0].Fingerprint, got.Models[0].Fingerprint)
		}
		if other.identity.Models[0].Fingerprint == got.Models[0].Fingerprint {
			t.Errorf("another server has %q, too", got.Models[0].Fingerprint)
		}
	})
}

func TestLikely(t *testing.T) {
	for _, kind := range kinds {
		f := start(t, kind, servertest.Options{})
		if kind == api.SGLang {
			continue // the scripted one does not say which ids are the likeliest: see TestLikelySGLang
		}
		if !f.Features().Likely {
			if _, err := f.Likely(t.Context(), f.model, []uint32{1, 2}, 1); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", kind, err)
			}
			continue
		}
		call := f.prompt("the likeliest [[length 30]]")
		call.Body = bytes.Replace(call.Body, []byte(`"temperature":1`), []byte(`"temperature":0`), 1)
		prompt, err := f.Tokenize(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		got := read(f.Generate(t.Context(), call))
		ids := slices.Concat(prompt, got.ids)
		if likely, err := f.Likely(t.Context(), f.model, ids, len(prompt)); err != nil || !likely {
			t.Errorf("%s: a greedy text is not the likeliest: %v", kind, err)
		}
		ids[len(prompt)+20]++
		if likely, err := f.Likely(t.Context(), f.model, ids, len(prompt)); err != nil || likely {
			t.Errorf("%s: another text is the likeliest: %v", kind, err)
		}
	}
}

func TestHealth(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		if h, err := f.Health(t.Context()); err != nil || h != (api.Health{}) {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

func TestLoading(t *testing.T) {
	f := start(t, api.LlamaCPP, servertest.Options{})
	f.scripted.SetLoading(true)
	if h, err := f.Health(t.Context()); err != nil || !h.Starting || h.Reason == "" {
		t.Errorf("%+v, %v", h, err)
	}
	if fault := faultOf(read(f.Generate(t.Context(), f.prompt("x"))).end); fault != api.Gone {
		t.Errorf("it is %q", fault)
	}
	auto := connect(t, api.Config{URL: f.url})
	if h, err := auto.Health(t.Context()); err != nil || !h.Starting {
		t.Errorf("of an unknown kind: %+v, %v", h, err)
	}
}

func faultOf(err error) api.Fault {
	if e := (*api.Error)(nil); errors.As(err, &e) {
		return e.Fault
	}
	return ""
}

func TestAnswer(t *testing.T) {
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		for _, name := range f.Answers() {
			body := map[string]string{"embeddings": `{"input":"a b"}`, "tokenize": `{"prompt":"a b","content":"a b"}`, "detokenize": `{"tokens":[1,2]}`}[name]
			doc, err := f.Answer(t.Context(), name, f.model, []byte(body))
			if err != nil || len(doc) == 0 {
				t.Errorf("%s: %s, %v", name, doc, err)
			}
		}
		if f.kind != api.Ollama && len(f.Answers()) == 0 {
			t.Error("it answers nothing")
		}
	})
}

func TestKey(t *testing.T) {
	const key = "sk-secret-of-the-server"
	f := start(t, api.VLLM, servertest.Options{APIKey: key})
	if got := read(f.Generate(t.Context(), f.prompt("x"))); got.finish.Reason == "" {
		t.Error(got.end)
	}
	wrong := connect(t, api.Config{URL: f.url, Kind: api.VLLM, Key: keyOf("sk-another")})
	_, err := wrong.Identify(t.Context())
	if faultOf(err) != api.Denied || strings.Contains(fmt.Sprintf("%+v", err), "another") {
		t.Errorf("a wrong key is %v", err)
	}
}

func TestFaultsBeforeTheAnswer(t *testing.T) {
	cases := []struct {
		fault servertest.Fault
		want  api.Fault
		after time.Duration
	}{
		{servertest.Fault{Kind: servertest.TooManyRequests, Delay: 3 * time.Second}, api.Busy, 3 * time.Second},
		{servertest.Fault{Kind: servertest.TooManyRequests}, api.Busy, 0},
		{servertest.Fault{Kind: servertest.InternalError}, api.Failed, 0},
		{servertest.Fault{Kind: servertest.Unavailable, Delay: 2 * time.Second}, api.Gone, 2 * time.Second},
		{servertest.Fault{Kind: servertest.ContextTooLong}, api.Rejected, 0},
		{servertest.Fault{Kind: servertest.FilteredPrompt}, api.Rejected, 0},
		{servertest.Fault{Kind: servertest.ResetBefore}, api.Gone, 0},
	}
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		for _, c := range cases {
			c.fault.Times = servertest.Forever
			f.scripted.Fail(c.fault)
			_, err := f.Generate(t.Context(), f.chat("x", ""))
			e := (*api.Error)(nil)
			if !errors.As(err, &e) || e.Fault != c.want || e.After != c.after {
				t.Errorf("%v: %#v", c.fault.Kind, err)
			}
			if c.want == api.Rejected && (e.Status != 400 || len(e.Document) == 0 || e.Message == "") {
				t.Errorf("%v: %#v", c.fault.Kind, err)
			}
			f.scripted.Heal()
		}
	})
}

// Wherever a stream breaks, it is said to be broken, and what has come before is what the undisturbed one has.
func TestFaultsInTheStream(t *testing.T) {
	want := map[servertest.FaultKind][]api.Fault{
		servertest.Reset: {api.Broken, api.Gone}, servertest.HalfEvent: {api.Broken}, servertest.CutEvent: {api.Broken, api.Gone},
		servertest.Garbage: {api.Broken}, servertest.SilentEnd: {api.Broken}, servertest.NoFinish: {api.Broken},
		servertest.Aborted: {api.Failed}, servertest.ErrorEvent: {api.Failed},
	}
	allKinds(t, servertest.Options{}, func(t *testing.T, f *fixture) {
		calls := []api.Call{f.chat("hello [[length 6]]", ""), f.prompt("hello [[length 6]]")}
		for _, call := range calls {
			whole := read(f.Generate(t.Context(), call))
			events := f.scripted.Events()
			for kind, faults := range want {
				if kind == servertest.Aborted && f.kind == api.LlamaCPP && call.API == wire.APICompletions {
					continue // /completion has no word for it
				}
				for at := range events {
					f.scripted.Fail(servertest.Fault{Kind: kind, At: at})
					got := read(f.Generate(t.Context(), call))
					f.scripted.Heal()
					if !strings.HasPrefix(whole.bytes[content], got.bytes[content]) {
						t.Errorf("%v at %d: %q of %q", kind, at, got.bytes[content], whole.bytes[content])
					}
					if complete := got.bytes[content] == whole.bytes[content] && got.finish.Reason == whole.finish.Reason; complete {
						continue // the fault came behind the reason to finish
					}
					if !slices.Contains(faults, faultOf(got.end)) {
						t.Errorf("%v at %d of %d: %v", kind, at, events, got.end)
					}
				}
			}
			for _, kind := range []servertest.FaultKind{servertest.NoDone, servertest.NullErrors} {
				f.scripted.Fail(servertest.Fault{Kind: kind})
				if got := read(f.Generate(t.Context(), call)); got.finish.Reason != whole.finish.Reason || got.finish.Usage != whole.finish.Usage {
					t.Errorf("%v: %v", kind, got.end)
				}
				f.scripted.Heal()
			}
		}
	})
}
