package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/e2e/internal/scripted"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// front is an HTTP client of a cluster's director, on a host of its own.
type front struct {
	*http.Client
	ctx context.Context
}

// front has to be closed before the cluster.
func (c *cluster) front(host string) *front {
	h := c.net.Host(host)
	return &front{ctx: c.ctx, Client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return h.DialStream(ctx, addr) },
	}}}
}

func (f *front) close() { f.CloseIdleConnections() }

// open asks for a path, with a document if there is one.
func (f *front) open(method, path string, document any, headers ...string) (*http.Response, error) {
	var body io.Reader
	if document != nil {
		b, err := json.Marshal(document)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(f.ctx, method, "http://director:61000"+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return f.Do(req)
}

// reply is all that a client sees of an answer.
type reply struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
}

// ask reads an answer to its end. The error is that of an answer which was broken off.
func (f *front) ask(method, path string, document any, headers ...string) (reply, error) {
	response, err := f.open(method, path, document, headers...)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, response.Trailer, string(body)}, err
}

// Families of end points.
var families = map[string]string{"chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses"}

// request asks for a shape.
func request(family string, shape scripted.Shape, stream bool, user string) map[string]any {
	r := map[string]any{"model": "scripted", "stream": stream, "user": user, "seed": 7}
	switch family {
	case "chat":
		r["messages"] = []any{map[string]any{"role": "user", "content": shape.Name}}
	case "completions":
		r["prompt"] = shape.Name
	default:
		r["input"] = shape.Name
	}
	maps.Copy(r, shape.Fields)
	return r
}

// faultsOfMatrix are what happens to the worker whose streams have all come to where they are cut. The first attempts end in the
// way.
var faultsOfMatrix = []struct {
	name, way string
	happen    func(c *cluster)
	quiet     bool // the client has to wait longer than a heartbeat
}{
	{"worker error", scripted.Fail, func(*cluster) {}, false},
	{"killed", scripted.Park, func(c *cluster) { c.workers[0].die(c.workers[0].host.Kill) }, false},
	{"hung", scripted.Park, func(c *cluster) { c.workers[0].host.Freeze() }, true},
	{"stuck", scripted.Park, func(*cluster) {}, true},
	{"drained", scripted.Park, func(c *cluster) { (&scenario{cluster: c}).drainFirst() }, false},
}

// drainFirst has an operator empty the first worker.
func (s *scenario) drainFirst() {
	if _, err := s.operate().Drain(s.ctx, s.workers[0].cfg.Label, time.Minute, true, nil); err != nil {
		s.t.Error(err)
	}
}

// TestMatrix has streams of all kinds cut at every chunk, in every way, and holds what an HTTP client gets against what it gets
// where nothing goes wrong: byte for byte, but for ids and times, which have to be the same over each answer.
func TestMatrix(t *testing.T) {
	shapes := scripted.Shapes()
	for _, family := range slices.Sorted(maps.Keys(families)) {
		for _, stream := range []bool{true, false} {
			for _, fault := range faultsOfMatrix {
				name := fmt.Sprintf("%s/stream=%v/%s", family, stream, fault.name)
				t.Run(name, func(t *testing.T) {
					m := matrix{family: family, stream: stream, way: fault.way, quiet: fault.quiet, happen: fault.happen}
					m.run(t, scripted.All(shapes), shapes)
				})
			}
		}
	}
}

// TestMatrixOfBuiltIn does so with the engines that are built in.
func TestMatrixOfBuiltIn(t *testing.T) {
	const tokens = 12
	for _, name := range []string{"markov", "counter"} {
		e, err := worker.EngineOf(config.Worker{Engine: name})
		if err != nil {
			t.Fatal(err)
		}
		shape := scripted.Shape{
			Name: "Once upon a time", Needed: tokens,
			Fields: map[string]any{"model": name, "max_tokens": tokens, "max_output_tokens": tokens},
		}
		for _, fault := range faultsOfMatrix {
			for _, family := range slices.Sorted(maps.Keys(families)) {
				t.Run(fmt.Sprintf("%s/%s/%s", name, family, fault.name), func(t *testing.T) {
					m := matrix{family: family, stream: true, way: fault.way, quiet: fault.quiet, happen: fault.happen}
					m.run(t, e, []scripted.Shape{shape})
				})
			}
		}
	}
}

// matrix is the part of it that is played in one cluster.
type matrix struct {
	family string
	stream bool
	way    string
	quiet  bool
	happen func(c *cluster)

	*front
	cutter *scripted.Cutter
}

// torn is one stream, and what came of it.
type torn struct {
	shape scripted.Shape
	after int // chunks
	user  string
	ids   bool // its events have some
	got   reply
	err   error
}

func (m *matrix) run(t *testing.T, e engine.Engine, shapes []scripted.Shape) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}}, nil)
		defer c.close()
		c.strict = true
		m.cutter = &scripted.Cutter{Engine: e}
		c.engine = m.cutter
		c.direct(func(cfg *config.Director) {
			cfg.HTTP, cfg.HTTPHeartbeat = "plain", 90*time.Millisecond
			cfg.MaxWorkerDeaths, cfg.MaxSwapsPerMinute = 1000, 1000
		})
		roomy := func(cfg *config.Worker) { cfg.TokenInterval, cfg.Capacity = 0, 10_000 }
		c.work(roomy)
		time.Sleep(time.Second) // in the bubble: until it is connected
		m.front = c.front("client")
		defer m.close()

		undisturbed := m.undisturbed(t, shapes)
		shapes = slices.DeleteFunc(slices.Clone(shapes), func(s scripted.Shape) bool { return len(undisturbed[s.Name]) == 0 })
		cuts := m.cuts(shapes)
		var all sync.WaitGroup
		for i := range cuts {
			all.Go(func() { cuts[i].got, cuts[i].err = m.play(cuts[i]) })
		}
		time.Sleep(100 * time.Millisecond) // until all are where they are cut
		c.work(roomy)
		time.Sleep(100 * time.Millisecond) // until the other one is connected
		m.happen(c)
		all.Wait()
		for _, cut := range cuts {
			want := undisturbed[cut.shape.Name][cut.ids]
			m.check(t, cut, want)
		}
		c.workers[0].host.Thaw()
	})
}

// undisturbed returns the answers where nothing goes wrong, by shape, without and with ids.
func (m *matrix) undisturbed(t *testing.T, shapes []scripted.Shape) map[string]map[bool]reply {
	all := map[string]map[bool]reply{}
	for _, shape := range shapes {
		all[shape.Name] = map[bool]reply{}
		if m.family == "responses" && shape.Text.Finish.Reasons != nil { // they have one choice only
			if got, err := m.play(torn{shape: shape}); err != nil || got.status != http.StatusBadRequest {
				t.Errorf("%s: %v, %+v", shape.Name, err, got)
			}
			continue
		}
		for _, ids := range []bool{false, true} {
			got, err := m.play(torn{shape: shape, ids: ids, user: "undisturbed"})
			if err != nil || got.status != http.StatusOK {
				t.Fatalf("%s: %v, %+v", shape.Name, err, got)
			}
			all[shape.Name][ids] = got
		}
	}
	return all
}

// cuts are all that there can be, or some of each shape: see every. Every other one is of a stream that can be taken up again.
func (m *matrix) cuts(shapes []scripted.Shape) (all []torn) {
	for i, shape := range shapes {
		for after := range shape.Cuts() + 1 {
			if (i+after)%every != 0 {
				continue
			}
			all = append(all, torn{shape: shape, after: after, user: scripted.User(shape.Name, m.way, after), ids: after%2 == 1})
		}
	}
	return all
}

func (m *matrix) play(c torn) (reply, error) {
	var headers []string
	if c.ids {
		headers = []string{"X-Connswap-Resume", "1"}
	}
	return m.ask(http.MethodPost, families[m.family], request(m.family, c.shape, m.stream, c.user), headers...)
}

// check holds an answer against that which nothing has disturbed.
func (m *matrix) check(t *testing.T, c torn, want reply) {
	needless := c.after == c.shape.Needed && c.after > 0
	if attempts := m.cutter.Attempts(c.user); !needless && (len(attempts) < 2 || attempts[len(attempts)-1] != c.after) {
		t.Errorf("%s: attempts began after %v chunks", c.user, attempts)
	}
	if c.err != nil || c.got.status != want.status {
		t.Errorf("%s: %d %q, %v", c.user, c.got.status, c.got.body, c.err)
		return
	}
	if got, want := minted(c.got.body), minted(want.body); got != want {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		from := max(0, at-300)
		t.Errorf("%s, from byte %d on:\n got %.600q\nwant %.600q", c.user, from, got[from:], want[from:])
	}
	m.listen(t, c)
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Connswap-Continuity"} {
		if got, want := c.got.header.Get(name), want.header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", c.user, name, got, want)
		}
	}
	outcome := c.got.header
	if m.stream {
		outcome = c.got.trailer
	}
	swaps := "1"
	if c.after == 0 { // what another worker begins was not swapped
		swaps = "0"
	}
	if got := outcome.Get("X-Connswap-Swaps"); got != swaps && !needless {
		t.Errorf("%s: told of %q swaps, want %s", c.user, got, swaps)
	}
	if m.stream && m.quiet && !needless && !strings.Contains(c.got.body, ": ping\n") {
		t.Errorf("%s: no ping while the worker says nothing", c.user)
	}
}

// listen has all SDKs read an answer, which has to say what is written for it.
func (m *matrix) listen(t *testing.T, c torn) {
	if !m.stream {
		h := &heard{ids: map[string]bool{}, texts: map[int]map[engine.Channel]string{}, calls: map[int][]toolCall{}, finishes: map[int]string{}}
		m.judge(t, c, h, h.hearWhole(m.family, []byte(c.got.body)))
		return
	}
	for sdk, decode := range sdks {
		events, err := decode(c.got.body)
		if err != nil {
			t.Errorf("%s: the SDK of %s fails: %v", c.user, sdk, err)
			continue
		}
		h, err := hear(m.family, events)
		m.judge(t, c, h, err)
	}
}

// judge holds what was heard against the script.
func (m *matrix) judge(t *testing.T, c torn, h *heard, err error) {
	if err != nil || !h.over {
		t.Errorf("%s: heard %+v, complete: %v, %v", c.user, h, h.over, err)
		return
	}
	if c.shape.Text.Chunks == nil { // a built-in engine's
		return
	}
	for choice, texts := range h.texts {
		for channel := engine.Content; channel < engine.ToolCall; channel++ {
			want := c.shape.Said(choice, channel)
			if m.family == "completions" { // which has one text for all
				want = c.shape.Said(choice)
			}
			if got := texts[channel]; got != want && (channel == engine.Content || m.family != "completions") {
				t.Errorf("%s: choice %d has %q on channel %d, want %q", c.user, choice, got, channel, want)
			}
		}
		called := ""
		for _, call := range h.calls[choice] {
			called += call.name + call.input
		}
		if want := c.shape.Said(choice, engine.ToolCall); called != want && m.family != "completions" {
			t.Errorf("%s: choice %d calls %q, want %q", c.user, choice, called, want)
		}
	}
	finish := c.shape.Text.Finish
	if want := max(1, len(finish.Reasons)); len(h.texts) != want {
		t.Errorf("%s: %d choices, want %d", c.user, len(h.texts), want)
	}
	for choice, reason := range h.finishes {
		if want := append(finish.Reasons, finish.Reason, finish.Reason)[choice]; reason != want {
			t.Errorf("%s: choice %d finishes with %q, want %q", c.user, choice, reason, want)
		}
	}
}

// What differs between two answers to the same request.
var (
	anID     = regexp.MustCompile(`"(?:chatcmpl-|cmpl-|resp_)([0-9a-f]{20})([0-9a-f]*)"`)
	aTime    = regexp.MustCompile(`"created(?:_at)?":(\d+)`)
	anUser   = regexp.MustCompile(`"user":"[^"]*"`)
	happened = regexp.MustCompile(`"swaps":\d+,"gap_ms":[0-9.]+`)
)

// minted puts names in the place of what is minted for an answer, pings and all that is different by right. An id that changes
// within the answer stays, and shows.
func minted(body string) string {
	body = strings.ReplaceAll(body, ": ping\n", "")
	if id := anID.FindStringSubmatch(body); id != nil {
		body = strings.ReplaceAll(body, id[1]+id[2], "ID")
		body = strings.ReplaceAll(body, id[1], "IDENT")
	}
	if created := aTime.FindStringSubmatch(body); created != nil {
		body = regexp.MustCompile(`("created(?:_at)?":)`+created[1]+`\b`).ReplaceAllString(body, "${1}TIME")
	}
	body = anUser.ReplaceAllString(body, `"user":"USER"`)
	return happened.ReplaceAllString(body, `"swaps":N,"gap_ms":N`)
}
