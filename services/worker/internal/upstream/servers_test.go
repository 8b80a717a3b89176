package upstream

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// kinds are those of servers, with what can be measured of their models.
var kinds = map[servertest.Kind]probe.Abilities{
	servertest.VLLM:     exact,
	servertest.SGLang:   exact,
	servertest.LlamaCPP: {Class: probe.Replayable, Repeats: true, RepeatsBusy: true, Greedy: true},
	servertest.Ollama:   {Class: probe.Replayable, Repeats: true, RepeatsBusy: true},
	servertest.OpenAI:   {Class: probe.Replayable, Repeats: true, RepeatsBusy: true},
}

// engineFor is an engine of a scripted server's model.
func engineFor(t *testing.T, kind servertest.Kind, s *servertest.Server, options Options) *Engine {
	t.Helper()
	server, err := api.New(api.Config{URL: s.Listen(t), Kind: api.Kind(kind), Timeouts: api.Timeouts{Silence: time.Minute, First: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	id, err := server.Identify(t.Context())
	if err != nil || len(id.Models) == 0 {
		t.Fatalf("%+v, %v", id, err)
	}
	options.Name = "model"
	e := New(server, options)
	e.Set(id.Models[0], kinds[kind])
	return e
}

// shapes are requests for all that the scripted servers make.
func shapes() map[string]engine.Request {
	ask := func(text, fields string) engine.Request {
		return engine.Request{
			API: wire.APIChat, Body: fmt.Appendf(nil, `{"messages":[{"role":"user","content":%q}]%s}`, text, fields), MaxTokens: 200, Choices: 1, Seed: 11,
		}
	}
	tools := `,"tools":[{"type":"function","function":{"name":"weather","parameters":{}}},{"type":"function","function":{"name":"time","parameters":{}}}]`
	two := ask("[[length 12]] Two", `,"n":2`)
	two.Choices = 2
	short := ask("[[length 40]] Short", `,"max_tokens":17`)
	short.MaxTokens = 17
	return map[string]engine.Request{
		"plain":      ask("[[length 30]] Hi", ``),
		"greedy":     ask("[[length 30]] Hi", `,"temperature":0`),
		"short":      short,
		"emoji":      ask("[[length 30]] [[emoji]] Hi", ``),
		"reasoning":  ask("[[think 8]] [[length 10]] Hi", ``),
		"refusal":    ask("[[refuse]] Hi", ``),
		"tools":      ask("[[calls 2]] Hi", tools),
		"JSON":       ask("Hi", `,"response_format":{"type":"json_object"}`),
		"choices":    two,
		"logprobs":   ask("[[length 12]] Hi", `,"logprobs":true,"top_logprobs":2`),
		"penalty":    ask("[[length 12]] Hi", `,"frequency_penalty":0.5`),
		"completion": {API: wire.APICompletions, Body: []byte(`{"prompt":"Once [[length 24]]","temperature":0.7}`), MaxTokens: 100, Choices: 1, Seed: 5},
		"stop":       {API: wire.APICompletions, Body: []byte(`{"prompt":"Once [[length 24]]","stop":["#"]}`), MaxTokens: 100, Choices: 1, Seed: 5},
		"prompt":     {Prompt: "Once [[length 24]] [[emoji]]", MaxTokens: 100, Choices: 1, Seed: 9},
		"responses":  {API: wire.APIResponses, Body: []byte(`{"input":"[[length 20]] Hi"}`), MaxTokens: 100, Choices: 1, Seed: 9},
	}
}

// TestServers: behind servers of each kind, a stream of each shape that is cut anywhere goes on with the text that it would have had.
func TestServers(t *testing.T) {
	for kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			a, b := servertest.New(kind, servertest.Options{Random: 1}), servertest.New(kind, servertest.Options{Random: 2})
			source, target := engineFor(t, kind, a, Options{}), engineFor(t, kind, b, Options{})
			if source.Fingerprint() != target.Fingerprint() {
				t.Fatalf("fingerprints are %q and %q", source.Fingerprint(), target.Fingerprint())
			}
			for name, req := range shapes() {
				req.Fingerprint = source.Fingerprint()
				if kind == servertest.Ollama && req.Choices > 1 {
					continue // it makes one, whatever is asked for
				}
				t.Run(name, func(t *testing.T) { cutsAt(t, source, target, req) })
			}
			idle(t, a)
			idle(t, b)
		})
	}
}

// cutsAt cuts a stream everywhere.
func cutsAt(t *testing.T, source, target *Engine, req engine.Request) {
	t.Helper()
	g := opened(t, source, req, nil)
	whole, finish := rest(t, g)
	if len(whole) < 2 {
		t.Fatalf("the text has %d chunks", len(whole))
	}
	finish.Usage.Cached = 0
	classes := map[engine.Continuity]int{}
	for cut := 1; cut <= len(whole); cut++ {
		g := opened(t, target, req, whole[:cut])
		more, ended := rest(t, g)
		ended.Usage.Cached = 0
		same(t, fmt.Sprintf("cut after %d of %d chunks", cut, len(whole)), slices.Concat(whole[:cut], more), whole, ended, finish)
		classes[g.(engine.Pledging).Pledge().Resumed]++
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d chunks, %d tokens, promised %+v, resumed by class %v", len(whole), finish.Usage.Completion, g.(engine.Pledging).Pledge(), classes)
}

// idle waits until a server works for nobody.
func idle(t *testing.T, s *servertest.Server) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.Running() > 0; {
		if time.Now().After(deadline) {
			t.Errorf("the server still works for %d requests", s.Running())
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestServerDiverges: a server that makes another text is found out, on each rung.
func TestServerDiverges(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{})
	e := engineFor(t, servertest.VLLM, s, Options{})
	req := shapes()["plain"]
	req.Fingerprint = e.Fingerprint()
	whole, _ := rest(t, opened(t, e, req, nil))
	for _, tries := range []int{0, 2} {
		s.Fail(servertest.Fault{Kind: servertest.Diverge, At: 1})
		req.Tries = tries
		if _, err := e.Open(t.Context(), req, whole[:20], ignore); !errors.Is(err, engine.ErrDiverged) {
			t.Errorf("try %d: %v", tries, err)
		}
		s.Heal()
	}
}

// TestServerFaults: whatever breaks in a stream, it fails, and another worker goes on with what there was of it.
func TestServerFaults(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{})
	e := engineFor(t, servertest.VLLM, s, Options{})
	for _, name := range []string{"plain", "tools", "choices"} {
		req := shapes()[name]
		req.Fingerprint = e.Fingerprint()
		whole, finish := rest(t, opened(t, e, req, nil))
		finish.Usage.Cached = 0
		for _, kind := range []servertest.FaultKind{servertest.Reset, servertest.HalfEvent, servertest.CutEvent, servertest.Garbage, servertest.SilentEnd, servertest.ErrorEvent, servertest.Aborted, servertest.NoFinish} {
			for _, at := range []int{0, 1, 2, 7, 11} {
				s.Fail(servertest.Fault{Kind: kind, At: at})
				var got []engine.Chunk
				g, err := e.Open(t.Context(), req, nil, ignore)
				for err == nil {
					var c engine.Chunk
					if c, err = g.Next(t.Context()); err == nil {
						got = append(got, c)
					}
				}
				s.Heal()
				if _, complete := engine.Finished(err); complete || errors.Is(err, engine.ErrDiverged) {
					t.Fatalf("%s, fault %s at %d: after %d chunks %v", name, kind, at, len(got), err)
				}
				more, ended := rest(t, opened(t, e, req, got))
				ended.Usage.Cached = 0
				same(t, fmt.Sprintf("%s, fault %s at %d", name, kind, at), slices.Concat(got, more), whole, ended, finish)
			}
		}
	}
}

// TestNoUsage: a stream whose server breaks off before it tells the usage goes on at another worker, which tells it; where that cannot be
// promised, it is complete.
func TestNoUsage(t *testing.T) {
	for kind := range kinds {
		s := servertest.New(kind, servertest.Options{})
		e := engineFor(t, kind, s, Options{})
		req := shapes()["plain"]
		req.Fingerprint = e.Fingerprint()
		whole, finish := rest(t, opened(t, e, req, nil))
		finish.Usage.Cached = 0
		for s.Events() < len(whole)/2 { // until the handler has ended, too
			time.Sleep(time.Millisecond)
		}
		last := s.Events() - 2 // behind it there is [DONE]
		for _, fault := range []servertest.FaultKind{servertest.Reset, servertest.HalfEvent, servertest.CutEvent, servertest.SilentEnd} {
			s.Fail(servertest.Fault{Kind: fault, At: last})
			g := opened(t, e, req, nil)
			var got []engine.Chunk
			var err error
			for err == nil {
				var c engine.Chunk
				if c, err = g.Next(t.Context()); err == nil {
					got = append(got, c)
				}
			}
			if ended, complete := engine.Finished(err); complete {
				ended.Usage.Cached = 0
				same(t, fmt.Sprint(kind, fault), got, whole, ended, finish)
				continue
			}
			more, ended := rest(t, opened(t, e, req, got))
			ended.Usage.Cached = 0
			same(t, fmt.Sprint(kind, fault), slices.Concat(got, more), whole, ended, finish)
		}
		e.Set(e.now.Load().model, probe.Abilities{Class: probe.Text})
		s.Fail(servertest.Fault{Kind: servertest.HalfEvent, At: last})
		req.Continuity = engine.None
		if _, ended := rest(t, opened(t, e, req, nil)); ended.Reason != finish.Reason || ended.Usage.Completion == 0 {
			t.Errorf("%s: %+v", kind, ended)
		}
		idle(t, s)
	}
}

// TestOllamaMakesOneChoice: who asks it for more is told so, and nobody is asked again.
func TestOllamaMakesOneChoice(t *testing.T) {
	e := engineFor(t, servertest.Ollama, servertest.New(servertest.Ollama, servertest.Options{}), Options{})
	_, err := e.Open(t.Context(), shapes()["choices"], nil, ignore)
	if rejected := engine.CodeOf(err); rejected.Code != wire.CodeInvalid || rejected.Status != 400 {
		t.Errorf("%v", err)
	}
}

// TestRefusedPrefill: a server that does not continue is asked for the whole answer.
func TestRefusedPrefill(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{})
	e := engineFor(t, servertest.VLLM, s, Options{})
	req := shapes()["plain"]
	req.Fingerprint = e.Fingerprint()
	whole, finish := rest(t, opened(t, e, req, nil))
	s.Fail(servertest.Fault{Kind: servertest.RefusePrefill, Times: servertest.Forever})
	g := opened(t, e, req, whole[:20])
	more, ended := rest(t, g)
	finish.Usage.Cached, ended.Usage.Cached = 0, 0
	same(t, "behind a refusal", slices.Concat(whole[:20], more), whole, ended, finish)
	if p := g.(engine.Pledging).Pledge(); p.Resumed != engine.Verified {
		t.Errorf("%+v", p)
	}
}

// TestServerIsAborted: who closes a stream has the server stop at once.
func TestServerIsAborted(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{TokenInterval: time.Hour})
	e := engineFor(t, servertest.VLLM, s, Options{})
	req := shapes()["plain"]
	g, err := e.Open(t.Context(), req, nil, ignore)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	idle(t, s)
}

// TestServerStandbys: both roles, against real streams.
func TestServerStandbys(t *testing.T) {
	for _, kind := range []servertest.Kind{servertest.VLLM, servertest.LlamaCPP} {
		s := servertest.New(kind, servertest.Options{})
		e := engineFor(t, kind, s, Options{})
		for name, req := range shapes() {
			req.Fingerprint = e.Fingerprint()
			whole, finish := rest(t, opened(t, e, req, nil))
			finish.Usage.Cached = 0
			for _, role := range []engine.Role{engine.StandingBy, engine.RunningAlong} {
				for _, cut := range []int{0, 1, len(whole) / 2, len(whole)} {
					req.Role = role
					g := opened(t, e, req, whole[:cut/2])
					advance(t, g, whole[cut/2:cut])
					more, ended := rest(t, g)
					ended.Usage.Cached = 0
					same(t, fmt.Sprintf("%s, %s, role %d, cut after %d chunks", kind, name, role, cut), slices.Concat(whole[:cut], more), whole, ended, finish)
				}
			}
		}
		idle(t, s)
	}
}

// TestNoLimit: a request that says nothing of how long its answer may be has one from each kind of server, those included that refuse what
// goes beyond a room of which they tell nothing.
func TestNoLimit(t *testing.T) {
	for kind := range kinds {
		e := engineFor(t, kind, servertest.New(kind, servertest.Options{ContextLength: 2000}), Options{})
		req := shapes()["plain"]
		req.MaxTokens = 100_000 // the director's
		whole, finish := rest(t, opened(t, e, req, nil))
		if finish.Reason != engine.Stop || finish.Usage.Completion < 30 {
			t.Errorf("%s: %d chunks, %+v", kind, len(whole), finish)
		}
		req.Fingerprint = e.Fingerprint()
		more, ended := rest(t, opened(t, e, req, whole[:20]))
		ended.Usage.Cached, finish.Usage.Cached = 0, 0
		same(t, string(kind), slices.Concat(whole[:20], more), whole, ended, finish)
	}
}
