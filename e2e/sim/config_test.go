package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
)

// asked is the engine counter, and remembers what it was asked for.
type asked struct {
	engine.Engine
	mu   sync.Mutex
	last engine.Request
}

func (a *asked) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	a.mu.Lock()
	a.last = req
	a.mu.Unlock()
	return a.Engine.Open(ctx, req, prefix, progress)
}

// was fails unless the last request was for these.
func (a *asked) was(t *testing.T, class engine.Continuity, most int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.Model != "counter" || a.last.Continuity != class || a.last.MaxTokens != most {
		t.Errorf("asked for %q, continuity %d, %d tokens; want counter, %d, %d", a.last.Model, a.last.Continuity, a.last.MaxTokens, class, most)
	}
}

// configFile is a director's configuration file.
type configFile string

// write has the file say something, beside the key of alice.
func (f configFile) write(t *testing.T, content string) {
	t.Helper()
	content += fmt.Sprintf("keys: [{name: alice, sha256: %x, models: [counter]}]\n", sha256.Sum256([]byte("sk-alice")))
	if err := os.WriteFile(string(f)+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(string(f)+".new", string(f)); err != nil {
		t.Fatal(err)
	}
}

// body returns the answer to a request with the key of alice.
func (f *front) body(t *testing.T, method, path, body string, headers ...string) string {
	t.Helper()
	var document any
	if body != "" {
		document = json.RawMessage(body)
	}
	r, err := f.ask(method, path, document, append(headers, "Authorization", "Bearer sk-alice")...)
	if err != nil || r.status != http.StatusOK {
		t.Errorf("%s %s: %d, %v: %s", method, path, r.status, err, r.body)
	}
	return r.body
}

// askFor asks for a number of tokens of a model over the native door, and returns the error that tells what is wrong with that.
func (s *scenario) askFor(model string, tokens uint32) outcome {
	stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", Seed: 7, Model: model, MaxTokens: tokens})
	if err != nil {
		return outcome{err: err}
	}
	return readStream(stream, nil)
}

// TestConfigFile: other names, continuity and limits of models hold at both doors, and what clients see is the name that they asked for,
// also where a worker dies. What changes in the file counts for what begins then, and what is wrong with it changes nothing.
func TestConfigFile(t *testing.T) {
	const chat, models = "/v1/chat/completions", "models:\n  counter: {aliases: [gpt-4o], continuity: text, max_tokens: 500}\n"
	counter, err := worker.Engine("counter")
	if err != nil {
		t.Fatal(err)
	}
	recorder := &asked{Engine: counter}
	file := configFile(filepath.Join(t.TempDir(), "director.yaml"))
	file.write(t, models)
	cfg := setup{engine: recorder, director: func(cfg *config.Director) { cfg.ConfigFile, cfg.HTTP = string(file), "plain" }}
	body := func(model string, tokens int, more string) string {
		return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"p"}],"seed":7,"max_tokens":%d%s}`, model, tokens, more)
	}
	stageAs(t, cfg, func(_ *testing.T, s *scenario) { s.key = "sk-alice" }, func(t *testing.T, s *scenario) {
		f := s.front("browser")
		defer f.close()
		list := f.body(t, http.MethodGet, "/v1/models", "")
		for _, id := range []string{"counter", "gpt-4o"} {
			if !strings.Contains(list, fmt.Sprintf(`{"id":%q,"object":"model"`, id)) {
				t.Errorf("%s is not in %s", id, list)
			}
		}
		s.answers(t, http.StatusUnauthorized, "mallory", http.MethodPost, chat, body("gpt-4o", 5, ""))

		// At both doors, by both names.
		if got := f.body(t, http.MethodPost, chat, body("gpt-4o", 5, "")); !strings.Contains(got, `"model":"gpt-4o"`) {
			t.Error(got)
		}
		recorder.was(t, engine.Text, 5)
		if got := f.body(t, http.MethodPost, chat, body("counter", 5, ""), "x-connswap-continuity", "exact"); !strings.Contains(got, `"model":"counter"`) {
			t.Error(got)
		}
		recorder.was(t, engine.Exact, 5)
		if o := s.askFor("gpt-4o", 20); o.err != nil || o.text != counted(20) {
			t.Errorf("%v: %q", o.err, o.text)
		}
		recorder.was(t, engine.Text, 20)
		if o := s.askFor("gpt-4", 20); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeForbidden}) {
			t.Errorf("a name that is none: %v", o.err)
		}
		s.answers(t, http.StatusBadRequest, "alice", http.MethodPost, chat, body("gpt-4o", 501, ""))
		if o := s.askFor("gpt-4o", 501); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeLimit}) || !strings.Contains(o.err.Error(), "allows 500") {
			t.Errorf("more than the model may: %v", o.err)
		}

		// A stream that moves goes by the name that it was asked by. Limits that change meanwhile are those of the next one.
		var reading sync.WaitGroup
		reading.Go(func() {
			if o := s.askFor("gpt-4o", 400); o.err != nil || o.text != counted(400) || len(o.swaps) == 0 {
				t.Errorf("%d tokens, %d swaps, %v", o.tokens, len(o.swaps), o.err)
			}
		})
		reading.Go(func() {
			got := f.body(t, http.MethodPost, chat, body("gpt-4o", 400, `,"stream":true`))
			if n := strings.Count(got, `"model":"gpt-4o"`); n < 3 || strings.Contains(got, `"model":"counter"`) || !strings.HasSuffix(got, "data: [DONE]\n\n") {
				t.Errorf("%d chunks: %.300s", n, got)
			}
		})
		time.Sleep(500 * time.Millisecond) // in the bubble
		file.write(t, models+"limits: {max_tokens: 40, max_session_bytes: 50, max_sessions: 70}\n")
		time.Sleep(2 * time.Second)
		for _, p := range s.workers {
			p.die(p.host.Kill)
			p.restart()
			time.Sleep(2 * time.Second)
		}
		if o := s.askFor("gpt-4o", 41); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeLimit}) || !strings.Contains(o.err.Error(), "allows 40") {
			t.Errorf("more than a stream may have now: %v", o.err)
		}
		if o := s.askFor("counter", 40); o.err != nil || len(o.text) > 50 || !strings.HasPrefix(counted(40), o.text) || o.text == counted(40) {
			t.Errorf("%v: %q", o.err, o.text)
		}
		reading.Wait()
		var shown struct {
			Shares struct{ Streams struct{ Limit int } }
		}
		if err := s.status("/v1/status", &shown); err != nil || shown.Shares.Streams.Limit != 70 {
			t.Errorf("%v, %+v", err, shown)
		}

		// What is wrong is said, and changes nothing.
		file.write(t, "models: {counter: {alias: [gpt-4o]}}\n")
		time.Sleep(3 * time.Second)
		status, err := s.operate().Status(s.ctx)
		if err != nil || status.ConfigFile == nil || status.ConfigFile.Path != string(file) ||
			!strings.Contains(status.ConfigFile.Error, string(file)+`:1: there is no field "alias"; did you mean aliases?`) {
			t.Errorf("%v, %+v", err, status.ConfigFile)
		}
		for result, want := range map[string]string{"taken": "1", "refused": "1"} {
			if n := s.counted(fmt.Sprintf(`connswap_config_reloads_total{file="config",result=%q}`, result)); n != want {
				t.Errorf("%s reloads were %s", n, result)
			}
		}
		if n := s.logged.count("the configuration file cannot be used, what was read before stays"); n != 1 {
			t.Errorf("said %d times", n)
		}
		s.answers(t, http.StatusOK, "alice", http.MethodPost, chat, body("gpt-4o", 5, ""))

		// A name that is gone is gone.
		file.write(t, "models: {counter: {continuity: none}}\n")
		time.Sleep(2 * time.Second)
		s.answers(t, http.StatusForbidden, "alice", http.MethodPost, chat, body("gpt-4o", 5, ""))
		if o := s.askFor("", 400); o.err != nil || o.text != counted(400) {
			t.Errorf("%v: %d tokens", o.err, o.tokens)
		}
		recorder.was(t, engine.None, 400)
		if status, err := s.operate().Status(s.ctx); err != nil || status.ConfigFile.Error != "" {
			t.Errorf("%v, %+v", err, status.ConfigFile)
		}
	})
}
