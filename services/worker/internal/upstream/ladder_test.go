package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/wire"
)

// greedy is a model that goes on by ids as the likeliest, and repeats itself.
var greedy = probe.Abilities{Class: probe.Replayable, Repeats: true, Greedy: true}

// refusing has a server refuse what continues.
func refusing(call api.Call) error {
	if call.IDs != nil || call.Text != nil {
		return &api.Error{Fault: api.Rejected, Status: 400, Message: "prompt must be a string"}
	}
	return nil
}

// way is how a call goes on with an answer.
func way(call api.Call) string {
	switch {
	case call.IDs != nil:
		return fmt.Sprintf("ids %d, %d left", len(call.IDs), call.MaxTokens)
	case call.Text != nil:
		return fmt.Sprintf("text %d, %d left", len(call.Text), call.MaxTokens)
	}
	return fmt.Sprintf("whole, %d left", call.MaxTokens)
}

// TestLadder: which ways to go on there are, behind ten chunks, and in what order.
func TestLadder(t *testing.T) {
	text := chat("")
	text.Continuity = engine.Text
	greedyText := chat(`"temperature":0`)
	greedyText.Continuity = engine.Text
	foreign := chat("")
	foreign.Fingerprint = "another"
	foreignGreedy := chat(`"temperature":0`)
	foreignGreedy.Fingerprint = "another"
	tests := map[string]struct {
		req       engine.Request
		abilities probe.Abilities
		change    func(d *double)
		tries     int
		ways      []string // that the server was asked for
		class     engine.Continuity
		err       error
	}{
		"by ids":                        {req: chat(""), abilities: exact, ways: []string{"ids 7, 996 left"}, class: engine.Exact},
		"by ids at another worker":      {req: chat(""), abilities: exact, tries: 1, ways: []string{"ids 7, 996 left"}, class: engine.Exact},
		"then again":                    {req: chat(""), abilities: exact, tries: 2, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"and again at another worker":   {req: chat(""), abilities: exact, tries: 3, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"then not":                      {req: chat(""), abilities: exact, tries: 4, err: engine.ErrNotContinued},
		"the text, if that is allowed":  {req: text, abilities: exact, tries: 4, ways: []string{"text 33, 990 left"}, class: engine.Text},
		"greedy: by ids":                {req: chat(`"temperature":0`), abilities: greedy, ways: []string{"ids 7, 996 left"}, class: engine.Verified},
		"greedy: the check":             {req: chat(`"temperature":0`), abilities: greedy, tries: 2, ways: []string{"ids 12, 991 left"}, class: engine.Verified},
		"greedy: the check, first":      {req: chat(`"temperature":0.0`), abilities: replayable, ways: []string{"ids 12, 991 left"}, class: engine.Verified},
		"greedy: again":                 {req: chat(`"temperature":0`), abilities: greedy, tries: 4, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"greedy: the text":              {req: greedyText, abilities: greedy, tries: 6, ways: []string{"text 33, 990 left"}, class: engine.Text},
		"unlikely":                      {req: chat(`"temperature":0`), abilities: replayable, change: func(d *double) { d.unlikely = true }, err: engine.ErrDiverged},
		"no rung beyond":                {req: greedyText, abilities: greedy, tries: 8, err: engine.ErrNotContinued},
		"not measured":                  {req: chat(""), abilities: replayable, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"refused ids":                   {req: chat(""), abilities: exact, change: func(d *double) { d.refuse = refusing }, ways: []string{"ids 7, 996 left", "whole, 1000 left"}, class: engine.Verified},
		"everything refused":            {req: text, abilities: exact, tries: 4, change: func(d *double) { d.refuse = refusing }, ways: []string{"text 33, 990 left"}, err: engine.ErrNotContinued},
		"another model's":               {req: foreign, abilities: exact, err: engine.ErrBusy},
		"another model's, greedy":       {req: foreignGreedy, abilities: exact, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"by ids, another text":          {req: chat(""), abilities: exact, change: func(d *double) { d.drift = 8 }, ways: []string{"ids 7, 996 left"}, err: engine.ErrDiverged},
		"again, another text":           {req: chat(""), abilities: replayable, change: func(d *double) { d.drift = 1 }, ways: []string{"whole, 1000 left"}, err: engine.ErrDiverged},
		"again, a shorter text":         {req: chat(""), abilities: replayable, change: func(d *double) { d.script = d.script[:5] }, ways: []string{"whole, 1000 left"}, err: engine.ErrDiverged},
		"min_tokens are left":           {req: chat(`"min_tokens":8`), abilities: exact, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"min_tokens are there":          {req: chat(`"min_tokens":4`), abilities: exact, ways: []string{"ids 7, 996 left"}, class: engine.Exact},
		"a server that checks nothing":  {req: chat(`"temperature":0`), abilities: replayable, change: func(d *double) { d.features.Likely = false }, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"a server that takes no text":   {req: text, abilities: exact, tries: 4, change: func(d *double) { d.features.Text = nil }, err: engine.ErrNotContinued},
		"a server that tells no ids":    {req: chat(""), abilities: exact, change: func(d *double) { d.features.IDs = nil }, ways: []string{"whole, 1000 left"}, class: engine.Verified},
		"a server that tokenizes never": {req: chat(""), abilities: exact, change: func(d *double) { d.features.Prompt = false }, ways: []string{"whole, 1000 left"}, class: engine.Verified},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := plainDouble(20)
			prefix, _ := rest(t, opened(t, engineOf(d, exact, Options{}), chat(""), nil))
			if test.change != nil {
				test.change(d)
			}
			d.calls = nil
			test.req.Tries = test.tries
			g, err := engineOf(d, test.abilities, Options{}).Open(t.Context(), test.req, prefix[:10], ignore)
			var ways []string
			for _, call := range d.asked() {
				ways = append(ways, way(call))
			}
			if !slices.Equal(ways, test.ways) {
				t.Errorf("it was asked for %q, want %q", ways, test.ways)
			}
			if test.err != nil {
				if !errors.Is(err, test.err) {
					t.Fatalf("%v, want %v", err, test.err)
				}
				quiet(t, d)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p := g.(engine.Pledging).Pledge(); p.Resumed != test.class {
				t.Errorf("it goes on as %d, want %d", p.Resumed, test.class)
			}
			more, _ := rest(t, g)
			if got, want := byChannel(slices.Concat(prefix[:10], more)), byChannel(prefix); test.class != engine.Text && got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			quiet(t, d)
		})
	}
}

// TestReplayIsBounded: behind more tokens than that there is no replay.
func TestReplayIsBounded(t *testing.T) {
	d := plainDouble(20)
	e := engineOf(d, replayable, Options{MaxReplayTokens: 5})
	prefix, _ := rest(t, opened(t, e, chat(""), nil))
	opened(t, e, chat(""), prefix[:5])
	if _, err := e.Open(t.Context(), chat(""), prefix[:6], ignore); !errors.Is(err, engine.ErrNotContinued) {
		t.Errorf("behind 6 tokens: %v", err)
	}
	along := chat("")
	along.Role = engine.RunningAlong
	opened(t, e, along, prefix[:6]) // costs nothing more
}

// TestCallBehindIDs: a call that goes on says how many tokens there are, and asks the server for no stop strings.
func TestCallBehindIDs(t *testing.T) {
	d := plainDouble(20)
	e := engineOf(d, exact, Options{})
	prefix, _ := rest(t, opened(t, e, chat(""), nil))
	opened(t, e, chat(`"min_tokens":4,"stop":"###"`), prefix[:10])
	calls := d.asked()
	last := calls[len(calls)-1]
	if body := string(last.Body); last.Done != 4 || last.IDs == nil || strings.Contains(body, "stop") || !strings.Contains(body, "messages") {
		t.Errorf("%d tokens, %s", last.Done, body)
	}
}

// TestPledge: what is promised depends on the request and on the model.
func TestPledge(t *testing.T) {
	text := func(fields string) engine.Request {
		r := chat(fields)
		r.Continuity = engine.Text
		return r
	}
	none := probe.Abilities{Class: probe.Text}
	tests := map[string]struct {
		req       engine.Request
		abilities probe.Abilities
		want      engine.Pledge
	}{
		"exact":                  {chat(""), exact, engine.Pledge{Continuity: engine.Exact}},
		"exact, with penalties":  {chat(`"presence_penalty":1`), exact, engine.Pledge{Continuity: engine.Verified}},
		"exact, with an image":   {chat(`"messages":[{"role":"user","content":[{"type":"image_url"}]}]`), exact, engine.Pledge{Continuity: engine.Verified}},
		"exact, min_tokens":      {chat(`"min_tokens":4`), exact, engine.Pledge{Continuity: engine.Verified}},
		"replayable":             {chat(""), replayable, engine.Pledge{Continuity: engine.Verified}},
		"replayable, long":       {chat(`"max_tokens":1000`), replayable, engine.Pledge{Continuity: engine.None}},
		"replayable, long, text": {text(`"max_tokens":1000`), replayable, engine.Pledge{Continuity: engine.Text, Portable: true}},
		"exact, long":            {chat(`"max_tokens":1000`), exact, engine.Pledge{Continuity: engine.Exact}},
		"greedy":                 {chat(`"temperature":0`), none, engine.Pledge{Continuity: engine.Verified, Portable: true}},
		"nothing":                {chat(""), none, engine.Pledge{Continuity: engine.None}},
		"nothing but text":       {text(""), none, engine.Pledge{Continuity: engine.Text, Portable: true}},
		"nothing but JSON":       {text(`"response_format":{"type":"json_object"}`), none, engine.Pledge{Continuity: engine.None}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := plainDouble(5)
			e := engineOf(d, test.abilities, Options{MaxReplayTokens: 500})
			test.want.Resumed = engine.Exact
			req := test.req
			req.Continuity = min(req.Continuity, test.want.Continuity)
			if got := opened(t, e, req, nil).(engine.Pledging).Pledge(); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			if test.want.Continuity == engine.Exact || test.req.Continuity == engine.Text {
				return
			}
			req.Continuity = max(test.want.Continuity+1, engine.Verified)
			_, err := e.Open(t.Context(), req, nil, ignore)
			var refusal *wire.Error
			if !errors.As(err, &refusal) || refusal.Status != 409 || !strings.Contains(string(refusal.Document), `"code":"continuity_unavailable"`) {
				t.Errorf("asked for %d: %v", req.Continuity, err)
			}
		})
	}
}

// TestReasoningIsRemembered: a chat of a model that reasons is promised no continuation by ids.
func TestReasoningIsRemembered(t *testing.T) {
	c := cases()["reasoning"]
	e := engineOf(c.server, exact, Options{})
	_, _ = rest(t, opened(t, e, c.request, nil))
	if p := opened(t, e, c.request, nil).(engine.Pledging).Pledge(); p.Continuity != engine.Verified {
		t.Errorf("%+v", p)
	}
	e.Set(api.Model{Name: "another", Fingerprint: "another"}, exact)
	if p := opened(t, e, c.request, nil).(engine.Pledging).Pledge(); p.Continuity != engine.Exact {
		t.Errorf("another model: %+v", p)
	}
}

// TestFailures: what a server's error means for a stream, at its beginning, behind a prefix, and later.
func TestFailures(t *testing.T) {
	document := []byte(`{"error":{"message":"no"}}`)
	tests := map[api.Fault]struct {
		first, behind, later wire.Code
		reported             bool
	}{
		api.Rejected: {wire.CodeInvalid, wire.CodeNotContinued, wire.CodeEngine, false},
		api.Busy:     {wire.CodeUnavailable, wire.CodeUnavailable, wire.CodeEngine, true},
		api.Gone:     {wire.CodeUnavailable, wire.CodeUnavailable, wire.CodeEngine, true},
		api.Denied:   {wire.CodeUnavailable, wire.CodeUnavailable, wire.CodeEngine, true},
		api.Failed:   {wire.CodeEngine, wire.CodeEngine, wire.CodeEngine, true},
		api.Broken:   {wire.CodeEngine, wire.CodeEngine, wire.CodeEngine, true},
		api.Silent:   {wire.CodeEngine, wire.CodeEngine, wire.CodeEngine, true},
	}
	for fault, test := range tests {
		t.Run(string(fault), func(t *testing.T) {
			d := plainDouble(9)
			prefix, _ := rest(t, opened(t, engineOf(d, exact, Options{}), chat(""), nil))
			why := &api.Error{Fault: fault, Status: 400, Message: "no", Document: document}
			reports := make(chan error, 99)
			e := engineOf(d, exact, Options{Report: func(err error) { reports <- err }})
			at := 0
			d.fail = func(_ api.Call, made int) error {
				if made == at {
					return why
				}
				return nil
			}
			_, err := e.Open(t.Context(), chat(""), nil, ignore)
			if code := engine.CodeOf(err); code.Code != test.first || fault == api.Rejected && string(code.Document) != string(document) {
				t.Errorf("at the beginning: %v", err)
			}
			_, err = e.Open(t.Context(), chat(""), prefix[:4], ignore)
			if code := engine.CodeOf(err); code.Code != test.behind {
				t.Errorf("behind a prefix: %v", err)
			}
			at = 3
			g := opened(t, e, chat(""), nil)
			for err = nil; err == nil; {
				_, err = g.Next(t.Context())
			}
			if code := engine.CodeOf(err); code.Code != test.later || !errors.Is(err, why) {
				t.Errorf("later: %v", err)
			}
			if _, again := g.Next(t.Context()); !errors.Is(again, why) {
				t.Errorf("and after that: %v", again)
			}
			if got := <-reports; errors.Is(got, why) != test.reported {
				t.Errorf("reported was %v", got)
			}
			quiet(t, d)
		})
	}
}

// TestNoModel: before the server has said which models it has nothing is taken.
func TestNoModel(t *testing.T) {
	e := newEngine(plainDouble(1), Options{Name: "model"})
	if _, err := e.Open(t.Context(), chat(""), nil, ignore); !errors.Is(err, engine.ErrBusy) || e.Fingerprint() != "" || e.Promises() != engine.None {
		t.Errorf("%v, fingerprint %q, promises %d", err, e.Fingerprint(), e.Promises())
	}
}

// TestPromises: what an engine promises in general is what was measured.
func TestPromises(t *testing.T) {
	for class, want := range map[probe.Class]engine.Continuity{probe.Exact: engine.Exact, probe.Replayable: engine.Verified, probe.IDs: engine.Verified, probe.Text: engine.Text} {
		d := plainDouble(1)
		e := engineOf(d, probe.Abilities{Class: class}, Options{})
		if got := e.Promises(); got != want || e.Fingerprint() != theModel.Fingerprint || e.Name() != "model" {
			t.Errorf("%s: %d, want %d", class, got, want)
		}
		if d.features.Text = nil; class == probe.Text && e.Promises() != engine.None {
			t.Errorf("without text: %d", e.Promises())
		}
	}
}

// TestWaiting: while the server is silent it is said that the engine waits; a caller who goes ends the request.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := plainDouble(9)
		d.gate = make(chan struct{})
		e := engineOf(d, replayable, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var reports []int
		failed := make(chan error)
		go func() {
			_, err := e.Open(ctx, chat(""), nil, func(at, of int) { reports = append(reports, at+1000*of) })
			failed <- err
		}()
		time.Sleep(450 * time.Millisecond)
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if !slices.Equal(reports, []int{1, 2, 3, 4}) {
			t.Errorf("progress was %v", reports)
		}
		synctest.Wait()
		quiet(t, d)
	})
}

// TestProgressOfReplay: a replay says how far it is.
func TestProgressOfReplay(t *testing.T) {
	d := plainDouble(12)
	e := engineOf(d, replayable, Options{})
	prefix, _ := rest(t, opened(t, e, chat(""), nil))
	var reports []string
	g, err := e.Open(t.Context(), chat(""), prefix[:4], func(at, of int) { reports = append(reports, fmt.Sprintf("%d/%d", at, of)) })
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close() //nolint:errcheck // it never fails
	if want := []string{"1/4", "2/4", "3/4"}; !slices.Equal(reports, want) {
		t.Errorf("%v, want %v", reports, want)
	}
}

// TestContextRoom: where the request does not say how long its answer may be it fits the model's context.
func TestContextRoom(t *testing.T) {
	d := plainDouble(9)
	e := engineOf(d, exact, Options{})
	e.Set(api.Model{Name: "m", Fingerprint: theModel.Fingerprint, Context: 50}, exact)
	prefix, _ := rest(t, opened(t, e, chat(""), nil))
	opened(t, e, chat(`"max_tokens":1000`), nil)
	opened(t, e, chat(""), prefix[:8])
	var ways []string
	for _, call := range d.asked() {
		ways = append(ways, way(call))
	}
	if want := []string{"whole, 47 left", "whole, 1000 left", "ids 5, 45 left"}; !slices.Equal(ways, want) {
		t.Errorf("%q, want %q", ways, want)
	}
}

// TestTokensAreNeverTooMany: a server that tells no ids may have more pieces than tokens; they are never more than were asked for, and as
// many only at the end.
func TestTokensAreNeverTooMany(t *testing.T) {
	for _, pieces := range []int{3, 4, 5, 9} {
		d := serverOf(withoutIDs(words(pieces)), engine.Length)
		req := chat(`"max_tokens":4`)
		d.finish.Usage.Completion = 4
		e := engineOf(d, replayable, Options{})
		req.MaxTokens = 1000
		j, err := e.newJob(req)
		if err != nil {
			t.Fatal(err)
		}
		g := newGeneration(j)
		if err := g.begin(t.Context(), &ticks{progress: ignore}); err != nil {
			t.Fatal(err)
		}
		j.req.MaxTokens = 4 // the double counts pieces, and a server does not
		all, _ := rest(t, g)
		for i := range all {
			if n := engine.Count(all[:i+1]); n > 4 || n == 4 && i+1 < len(all) {
				t.Errorf("%d of %d pieces stand for %d tokens", i+1, pieces, n)
			}
		}
		if len(all) != pieces || pieces == 4 && engine.Count(all) != 4 {
			t.Errorf("%d of %d chunks, for %d tokens", len(all), pieces, engine.Count(all))
		}
		g.abandon()
	}
}

// TestTokensBehindAnAdvance: those that a standby was brought count, too.
func TestTokensBehindAnAdvance(t *testing.T) {
	d := serverOf(withoutIDs(words(6)), engine.Length)
	e := engineOf(d, replayable, Options{})
	req := chat("")
	j, err := e.newJob(req)
	if err != nil {
		t.Fatal(err)
	}
	g := newGeneration(j)
	defer g.abandon()
	if err := g.begin(t.Context(), &ticks{progress: ignore}); err != nil {
		t.Fatal(err)
	}
	j.req.MaxTokens = 4 // of six pieces
	advance(t, g, []engine.Chunk{content(string(d.script[0].Text)), content(string(d.script[1].Text))})
	if all, _ := rest(t, g); len(all) != 4 || engine.Count(all) > 2 {
		t.Errorf("%d chunks for %d tokens", len(all), engine.Count(all))
	}
}

// TestBorder: where a text may be gone on with by ids.
func TestBorder(t *testing.T) {
	tests := map[string]struct {
		chunks  chunks
		overlap int
		want    int
	}{
		"nothing":              {nil, 6, 0},
		"too few":              {chunks{withIDs("a", 1), withIDs("b", 2)}, 3, 0},
		"as many":              {chunks{withIDs("a", 1), withIDs("b", 2), withIDs("c", 3)}, 2, 1},
		"several in one":       {chunks{withIDs("a", 1), withIDs("bcd", 2, 3, 4)}, 2, 1},
		"behind a silent one":  {chunks{withIDs("a", 1), withIDs("", 2), withIDs("😀", 3), withIDs("b", 4)}, 2, 1},
		"within a character":   {chunks{withIDs("a", 1), withIDs("\xf0\x9f", 2), withIDs("\x98\x80", 3), withIDs("b", 4)}, 2, 1},
		"behind the character": {chunks{withIDs("a", 1), withIDs("\xf0\x9f", 2), withIDs("\x98\x80", 3), withIDs("b", 4)}, 1, 3},
	}
	for name, test := range tests {
		if got := border(test.chunks, test.overlap); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// TestLargePieces: what a server makes in one piece comes in as many chunks as it takes.
func TestLargePieces(t *testing.T) {
	args := strings.Repeat("é", 5000)
	d := serverOf([]api.Delta{
		{Channel: engine.ToolCall, Call: &wire.Call{Index: 0}, Text: []byte("f"), Tokens: 1},
		{Channel: engine.ToolCall, Call: &wire.Call{Index: 0}, Text: []byte(args), Tokens: 1},
		{Text: []byte("a"), IDs: make([]uint32, 700), Tokens: 700},
	}, engine.Stop)
	entry := fmt.Sprintf(`{"token":"x","bytes":%q}`, strings.Repeat("y", 3000))
	d.script[2].Logprobs = []byte(`{"content":[` + strings.Join([]string{entry, entry, entry, entry, entry}, ",") + `]}`)
	all, _ := rest(t, opened(t, engineOf(d, replayable, Options{}), chat(`"tools":[{}],"logprobs":true`), nil))
	var text string
	ids := 0
	for _, c := range all {
		text += string(c.Text)
		ids += len(c.TokenIDs)
	}
	if text != "f"+args+"a" || ids != 700 || engine.Count(all) != 702 || len(logprobsOf(all)) != 5 {
		t.Errorf("%d bytes, %d ids, %d tokens, %d log probabilities in %d chunks", len(text), ids, engine.Count(all), len(logprobsOf(all)), len(all))
	}
}

// TestAnswer: a document is the text, in bounded chunks.
func TestAnswer(t *testing.T) {
	d := plainDouble(1)
	large := `{"data":"` + strings.Repeat("x", 3*engine.MaxText) + `","usage":{"prompt_tokens":5}}`
	d.document = func(of string, body []byte) ([]byte, error) {
		if string(body) == "bad" {
			return nil, &api.Error{Fault: api.Rejected, Status: 422, Message: "no"}
		}
		return []byte(large), nil
	}
	e := engineOf(d, probe.Abilities{}, Options{})
	req := engine.Request{API: "embeddings", Body: []byte(`{}`), MaxTokens: 9, Choices: 1, Continuity: engine.Verified}
	g := opened(t, e, req, nil)
	all, finish := rest(t, g)
	text := ""
	for _, c := range all {
		text += string(c.Text)
	}
	if text != large || finish.Reason != engine.Stop || finish.Usage.Prompt != 5 || g.(engine.Prompted).PromptTokens() != 5 {
		t.Errorf("%d bytes, %+v", len(text), finish)
	}
	more, _ := rest(t, opened(t, e, req, all[:2]))
	if len(more) != len(all)-2 {
		t.Errorf("behind two of %d chunks there are %d", len(all), len(more))
	}
	req.Body = []byte("bad")
	var refusal *wire.Error
	if _, err := e.Open(t.Context(), req, nil, ignore); !errors.As(err, &refusal) || refusal.Status != 422 {
		t.Errorf("%v", err)
	}
	if a := e.Answers(); !slices.Equal(a, []string{"embeddings"}) {
		t.Errorf("%v", a)
	}
}
