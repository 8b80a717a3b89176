package sim

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/servertest"
)

var cutsOf = flag.Int("cuts", 18*every, "of the cuts of the matrix of inference servers, play one in so many")

// abilities are servers of each class.
var abilities = []ability{
	{"vllm", servertest.VLLM, servertest.Options{}},
	{"vllm, keyed by its state", servertest.VLLM, servertest.Options{Sampler: servertest.StateKeyed}},
	{"sglang", servertest.SGLang, servertest.Options{}},
	{"llamacpp", servertest.LlamaCPP, servertest.Options{}},
	{"ollama", servertest.Ollama, servertest.Options{}},
	{"openai", servertest.OpenAI, servertest.Options{}},
}

// wanted is a kind of answer that is asked for.
type wanted struct {
	kind   string
	prompt string
	fields map[string]any
	stops  bool // a word of the answer is a stop string
}

// wants are kinds of answers, by family: what requests have in common, and what is different.
func wants(family string) []wanted {
	common := []wanted{
		{kind: "plain", prompt: "[[length 14]] Hi"},
		{kind: "emoji", prompt: "[[length 16]] [[emoji]] Hi"},
		{kind: "greedy", prompt: "[[length 14]] Hi", fields: map[string]any{"temperature": 0}},
		{kind: "unlimited", prompt: "[[length 12]] Hi", fields: map[string]any{"max_tokens": nil, "max_output_tokens": nil}},
	}
	function := map[string]any{"name": "weather", "parameters": map[string]any{}}
	tool := map[string]any{"type": "function", "function": function}
	switch family {
	case "completions":
		return append(
			common[:3], // it has 16 tokens where nobody says
			wanted{kind: "stop string", prompt: "[[length 14]] Hi", stops: true},
			wanted{kind: "n=2", prompt: "[[length 8]] Hi", fields: map[string]any{"n": 2}},
			wanted{kind: "logprobs", prompt: "[[length 8]] Hi", fields: map[string]any{"logprobs": 1}},
		)
	case "chat":
		common = append(
			common,
			wanted{kind: "stop string", prompt: "[[length 14]] Hi", stops: true},
			wanted{kind: "n=2", prompt: "[[length 8]] Hi", fields: map[string]any{"n": 2}},
			wanted{kind: "logprobs", prompt: "[[length 8]] Hi", fields: map[string]any{"logprobs": true, "top_logprobs": 2}},
			wanted{kind: "JSON", prompt: "Hi", fields: map[string]any{"response_format": map[string]any{"type": "json_object"}}},
		)
	default:
		tool = maps.Clone(function)
		tool["type"] = "function"
		common = append(common, wanted{kind: "JSON", prompt: "Hi", fields: map[string]any{"text": map[string]any{"format": map[string]any{"type": "json_object"}}}})
	}
	return append(
		common,
		wanted{kind: "reasoning", prompt: "[[think 6]] [[length 8]] Hi"},
		wanted{kind: "refusal", prompt: "[[refuse]] Hi"},
		wanted{kind: "tools", prompt: "[[calls 2]] Hi", fields: map[string]any{"tools": []any{tool}}},
	)
}

// free is behind how many events the model has chosen something.
func (w wanted) free() int {
	if w.kind == "tools" || w.kind == "JSON" {
		return 3 * begun
	}
	return begun
}

// document is the request for it.
func (w wanted) document(family, user string, stream bool) map[string]any {
	r := map[string]any{"stream": stream, "user": user, "seed": 7, "max_tokens": 60}
	switch family {
	case "chat":
		r["messages"] = []any{map[string]any{"role": "user", "content": w.prompt}}
	case "completions":
		r["prompt"] = w.prompt
	default:
		r["input"], r["max_output_tokens"] = w.prompt, 60
		delete(r, "max_tokens")
	}
	if stream && family != "responses" {
		r["stream_options"] = map[string]any{"include_usage": true}
	}
	maps.Copy(r, w.fields)
	return r
}

// trouble is what happens to the attempts at a stream, by their number. At is set to where it is cut.
type trouble struct {
	name     string
	attempts []servertest.Fault
	anywhere bool // where does not matter
	late     bool // only behind what the answer says
	behind   bool // only behind the beginning of the answer
	whole    bool // the client need not be told of a swap: the answer was complete, or had not begun
}

// begun is after how many events an answer has begun to say something, and ended is how many come behind what it says.
const begun, ended = 7, 3

var troubles = []trouble{
	{name: "reset", attempts: []servertest.Fault{{Kind: servertest.Reset}}},
	{name: "silence", attempts: []servertest.Fault{{Kind: servertest.Silence}}},
	{name: "half an event", attempts: []servertest.Fault{{Kind: servertest.HalfEvent}}},
	{name: "half an event, reset", attempts: []servertest.Fault{{Kind: servertest.CutEvent}}},
	{name: "garbage", attempts: []servertest.Fault{{Kind: servertest.Garbage}}},
	{name: "an end like any other", attempts: []servertest.Fault{{Kind: servertest.SilentEnd}}},
	{name: "an error in a 200", attempts: []servertest.Fault{{Kind: servertest.ErrorEvent}}},
	{name: "abort", attempts: []servertest.Fault{{Kind: servertest.Aborted}}},
	{name: "no finish", attempts: []servertest.Fault{{Kind: servertest.NoFinish}}, anywhere: true},
	{name: "no [DONE]", attempts: []servertest.Fault{{Kind: servertest.NoDone}}, anywhere: true, whole: true},
	{name: "null errors", attempts: []servertest.Fault{{Kind: servertest.NullErrors}}, anywhere: true, whole: true},
	{name: "a late duplicate", attempts: []servertest.Fault{{Kind: servertest.Duplicate}}, late: true, whole: true},
	{name: "reset, then 500", attempts: []servertest.Fault{{Kind: servertest.Reset}, {Kind: servertest.InternalError}}},
	{name: "reset, then 429", attempts: []servertest.Fault{{Kind: servertest.Reset}, {Kind: servertest.TooManyRequests, Delay: time.Second}}},
	{name: "reset twice", attempts: []servertest.Fault{{Kind: servertest.Reset}, {Kind: servertest.Reset}}},
	{name: "reset, then another text", attempts: []servertest.Fault{{Kind: servertest.Reset}, {Kind: servertest.Diverge, At: 1}}, behind: true},
	{name: "reset, refused prefill", attempts: []servertest.Fault{{Kind: servertest.Reset}, {Kind: servertest.RefusePrefill, Times: servertest.Forever}}},
}

// faultsAt are those of a stream, of whatever server it is at: the faults of its n-th attempt, in place of an event.
func (tr trouble) faultsAt(user string, at int) (all []servertest.Fault) {
	name := []byte(strconv.Quote(user))
	for n, f := range tr.attempts {
		if f.Kind != servertest.Diverge {
			f.At = at
		}
		ever := f.Times == servertest.Forever
		var seen struct {
			sync.Mutex
			attempts int
		}
		f.Times = servertest.Forever
		f.Match = func(r servertest.Request) bool {
			if !bytes.Contains(r.Body, name) {
				return false
			}
			seen.Lock()
			defer seen.Unlock()
			seen.attempts++
			return seen.attempts == n+1 || ever && seen.attempts > n
		}
		all = append(all, f)
	}
	return all
}

// TestMatrixOfServers has streams of all kinds cut at every event of their inference server, in every way, and holds what an HTTP client
// gets against what it gets where nothing goes wrong.
func TestMatrixOfServers(t *testing.T) {
	for _, a := range abilities {
		for _, family := range slices.Sorted(maps.Keys(families)) {
			for _, stream := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/stream=%v", a.name, family, stream), func(t *testing.T) {
					inFleet(t, besides{ability: a, servers: 2}, func(t *testing.T, f *fleet) {
						m := &serverMatrix{fleet: f, t: t, family: family, stream: stream}
						for n, w := range wants(family) {
							m.play(n, w)
						}
					})
				})
			}
		}
	}
}

// serverMatrix is the part of it that is played in one cluster.
type serverMatrix struct {
	*fleet
	t      *testing.T
	family string
	stream bool
	played int
}

// broken is one stream of it, and what came of it.
type broken struct {
	wanted
	trouble
	at   int
	user string
	got  reply
	err  error
}

func (m *serverMatrix) request(w wanted, user string) (reply, error) {
	return m.ask(http.MethodPost, families[m.family], w.document(m.family, user, m.stream))
}

// play cuts the streams of one kind of answer.
func (m *serverMatrix) play(number int, w wanted) {
	if w.stops {
		w = m.withStop(w)
	}
	made := []int{m.servers[0].Tokens(), m.servers[1].Tokens()}
	want, err := m.request(w, "undisturbed")
	if w.kind == "n=2" && m.servers[0].kind == servertest.Ollama {
		if err != nil || want.status != http.StatusBadRequest || !strings.Contains(want.body, "makes one choice") {
			m.t.Errorf("%s: %d %s, %v", w.kind, want.status, want.body, err)
		}
		return
	}
	if err != nil || want.status != http.StatusOK {
		m.t.Errorf("%s: undisturbed: %d %s, %v", w.kind, want.status, want.body, err)
		return
	}
	m.sane(w, want)
	events := 0
	for i, s := range m.servers {
		if s.Tokens() > made[i] {
			events = s.Events()
		}
	}
	var cuts []broken
	for i, tr := range troubles {
		if tr.name == "abort" && m.servers[0].kind == servertest.LlamaCPP && m.family == "completions" {
			continue // its own API has no such reason
		}
		for at := range events {
			switch {
			case (number+i*7+at+m.played)%*cutsOf != 0 && !(tr.anywhere && at == 0):
				continue
			case tr.anywhere && at > 0, tr.late && at < events-1, tr.behind && at < w.free():
				continue
			}
			cuts = append(cuts, broken{wanted: w, trouble: tr, at: at, user: fmt.Sprintf("%s, %s at %d", w.kind, tr.name, at)})
		}
	}
	m.played++
	for _, c := range cuts {
		faults := c.faultsAt(c.user, c.at)
		for _, s := range m.servers {
			s.Fail(faults...)
		}
	}
	var all sync.WaitGroup
	for i := range cuts {
		all.Go(func() { cuts[i].got, cuts[i].err = m.request(w, cuts[i].user) })
	}
	all.Wait()
	for _, c := range cuts {
		m.check(c, want, events)
	}
	for _, s := range m.servers {
		s.Heal()
	}
	m.idle(m.t, 100*time.Millisecond)
}

// withStop is an answer that a word of it stops.
func (m *serverMatrix) withStop(w wanted) wanted {
	whole, err := m.ask(http.MethodPost, families[m.family], w.document(m.family, "whole", false))
	h := newHeard()
	if err = errorOf(err, h.hearWhole(m.family, []byte(whole.body))); err != nil {
		m.t.Fatal(err)
	}
	words := strings.Fields(h.texts[0][engine.Content])
	w.fields = map[string]any{"stop": []string{words[len(words)*2/3], "never"}}
	return w
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func newHeard() *heard {
	return &heard{ids: map[string]bool{}, texts: map[int]map[engine.Channel]string{}, calls: map[int][]toolCall{}, finishes: map[int]string{}}
}

// heardOf is what a caller makes of an answer.
func (m *serverMatrix) heardOf(r reply) (*heard, error) {
	if !m.stream {
		h := newHeard()
		return h, h.hearWhole(m.family, []byte(r.body))
	}
	events, err := decodeGo(r.body)
	if err != nil {
		return newHeard(), err
	}
	return hear(m.family, events)
}

// sane fails unless an answer is of the kind that was wanted.
func (m *serverMatrix) sane(w wanted, r reply) {
	h, err := m.heardOf(r)
	if err != nil || !h.over {
		m.t.Errorf("%s: heard %+v, %v", w.kind, h, err)
		return
	}
	has := func(choice int, channel engine.Channel) bool { return h.texts[choice][channel] != "" }
	ok := has(0, engine.Content)
	switch w.kind {
	case "n=2":
		ok = has(0, engine.Content) && has(1, engine.Content)
	case "reasoning":
		ok = has(0, engine.Content) && has(0, engine.Reasoning)
	case "refusal":
		ok = has(0, engine.Content) || has(0, engine.Refusal)
	case "tools":
		ok = len(h.calls[0]) == 2
	}
	if !ok || h.usage == "" {
		m.t.Errorf("%s: heard %+v", w.kind, h)
	}
}

// check holds an answer against that which nothing has disturbed.
func (m *serverMatrix) check(c broken, want reply, events int) {
	if c.err != nil || c.got.status != want.status {
		m.t.Errorf("%s: %d %q, %v", c.user, c.got.status, c.got.body, c.err)
		return
	}
	if got, want := comparable(c.got.body), comparable(want.body); got != want {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		from := max(0, at-200)
		m.t.Errorf("%s, of %d events, from byte %d on:\n got %.600q\nwant %.600q", c.user, events, at, got[from:], want[from:])
	}
	if h, err := m.heardOf(c.got); err != nil || !h.over {
		m.t.Errorf("%s: heard %+v, %v", c.user, h, err)
	}
	outcome := c.got.header
	if m.stream {
		outcome = c.got.trailer
	}
	if got := outcome.Get("X-Connswap-Swaps"); got == "0" && !c.whole && c.at >= begun && c.at < events-ended && !c.stops {
		m.t.Errorf("%s, of %d events: told of no swap", c.user, events)
	}
}

var wentOn = regexp.MustCompile(`"continuity":"(exact|verified)"`)

// comparable leaves out of an answer what is different by right: names that are minted, and how another worker went on.
func comparable(body string) string {
	return wentOn.ReplaceAllString(minted(body), `"continuity":"CLASS"`)
}

// idle fails unless no server works for anybody any more, within a time.
func (f *fleet) idle(t *testing.T, within time.Duration) {
	t.Helper()
	time.Sleep(within)
	for _, s := range f.servers {
		if n := s.Running(); n > 0 {
			t.Errorf("%s works for %d requests", s.host.Name(), n)
		}
	}
}
