package loopback

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// TestUpstream: workers beside an inference server serve what it makes, operators see it, and a hangup has its model measured anew.
func TestUpstream(t *testing.T) {
	server := servertest.New(servertest.OpenAI, servertest.Options{Model: "m"})
	c := up(t, "CONNECTION_SWAP_WORKER_ENGINE=upstream", "CONNECTION_SWAP_WORKER_UPSTREAM_URL="+server.Listen(t))
	a := c.workers["worker-a"]
	for _, w := range c.workers {
		if line := w.line(t, "model measured"); line["class"] != "replayable" || line["model"] != "m" {
			t.Errorf("%v", line)
		}
		w.line(t, "registered")
	}
	if done, err := c.generate(t.Context(), 20, func(string) {}); err != nil || done.Tokens == 0 {
		t.Errorf("%+v, %v", done, err)
	}
	// What it is comes first, with a token.
	server.Fail(servertest.Fault{Kind: servertest.Diverge, At: 5, Skip: 2})
	a.signal(t, syscall.SIGHUP)
	if line := a.line(t, "model measured"); line["class"] != "text" {
		t.Errorf("%v", line)
	}
	a.line(t, "registered")
	shown := c.workersBeside(t)
	for i, class := range []string{"text", "replayable"} {
		if w := shown[i]; w.Reason != "" || !strings.HasPrefix(w.Server, "openai at http://127.0.0.1:") || w.Models[0].Name != "m" || w.Models[0].Class != class {
			t.Errorf("%+v", w)
		}
	}
	server.Kill()
	for away := map[any]bool{}; len(away) < 2; {
		if line := c.director.line(t, "worker status"); line["available"] == false {
			away[line["worker"]] = true
		}
	}
	for _, w := range c.workersBeside(t) {
		if w.Available || !strings.Contains(w.Reason, "does not answer") {
			t.Errorf("%+v", w)
		}
	}
	for _, p := range []*process{c.director, a, c.workers["worker-b"]} {
		p.terminate(t)
	}
}

// shownWorker is what a director's document has of a worker beside a server.
type shownWorker struct {
	Worker, Server, Reason string
	Available              bool
	Models                 []struct{ Name, Class string }
}

// workersBeside returns what the director shows of its two workers.
func (c *cluster) workersBeside(t *testing.T) []shownWorker {
	t.Helper()
	_, body := c.get(t, "director", "/v1/workers")
	var shown struct{ Workers []shownWorker }
	if err := json.Unmarshal([]byte(body), &shown); err != nil || len(shown.Workers) != 2 {
		t.Fatal(err, body)
	}
	return shown.Workers
}
