package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// keyFile is a file of keys; that of a name is the name with "sk-" before it.
type keyFile string

// write has the file name some keys, each with what is said of it.
func (f keyFile) write(t *testing.T, keys map[string]string) {
	t.Helper()
	content := "keys:\n- {name: nobody, sha256: " + strings.Repeat("0", 64) + "}\n"
	for name, fields := range keys {
		content += fmt.Sprintf("- {name: %s, sha256: %x, %s}\n", name, sha256.Sum256([]byte("sk-"+name)), fields)
	}
	if err := os.WriteFile(string(f), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// overHTTP makes a request at the director's USER port with the key of a name. It returns once there is an answer.
func (s *scenario) overHTTP(t *testing.T, name, method, path, body string) *http.Response {
	t.Helper()
	host := s.net.Host("web")
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return host.DialStream(ctx, addr) },
	}
	req, err := http.NewRequestWithContext(s.ctx, method, "http://director:61000"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk-"+name)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// answers fails unless that is the status of a request, and returns the code of the error if it is one.
func (s *scenario) answers(t *testing.T, status int, name, method, path, body string) (code string, header http.Header) {
	t.Helper()
	resp := s.overHTTP(t, name, method, path, body)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Errorf("%s %s with the key of %s: %s %v, want %d: %s", method, path, name, resp.Status, err, status, content)
	}
	var refusal struct{ Error struct{ Code string } }
	_ = json.Unmarshal(content, &refusal) // not each answer is one
	return refusal.Error.Code, resp.Header
}

// counted returns a counter of the director's.
func (s *scenario) counted(series string) string {
	for line := range strings.Lines(s.text("director:61001", "/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

// TestKeysAtBothDoors: a key is good at both, and has its limits over both together. Nobody sees the streams of another one. What a
// stream took is counted once, although its worker dies. Who is taken out of the file is out.
func TestKeysAtBothDoors(t *testing.T) {
	file := keyFile(filepath.Join(t.TempDir(), "keys.yaml"))
	all := map[string]string{"alice": "max_streams: 2, requests_per_minute: 60, tokens_per_minute: 100000, priority: 9", "bob": "models: [other]"}
	file.write(t, all)
	cfg := setup{
		director: func(cfg *config.Director) { cfg.KeysFile, cfg.HTTP = string(file), "plain" },
		worker:   func(cfg *config.Worker) { cfg.Engine = "markov" },
	}
	const post, path, chat = http.MethodPost, "/v1/responses", "/v1/chat/completions"
	const long = `{"model":"markov","input":"hello","stream":true,"max_output_tokens":400}`
	const short = `{"model":"markov","messages":[{"role":"user","content":"hello"}],"max_tokens":5}`
	stageAs(t, cfg, func(_ *testing.T, s *scenario) { s.key = "sk-alice" }, func(t *testing.T, s *scenario) {
		nobody := func(key string) {
			t.Helper()
			_, err := connswap.Dial(s.ctx, "director:61000", connswap.Options{Network: s.net.Host("other"), TLS: s.sources["client"], Key: key})
			if !errors.Is(err, &connswap.Error{Code: connswap.CodeUnauthorized}) || key != "" && strings.Contains(err.Error(), key) {
				t.Errorf("dialled with %q: %v", key, err)
			}
		}
		nobody("")
		nobody("sk-mallory")
		if code, _ := s.answers(t, http.StatusUnauthorized, "mallory", post, chat, short); code != "invalid_api_key" {
			t.Error(code)
		}
		s.answers(t, http.StatusOK, "mallory", http.MethodGet, "/health", "")
		if code, _ := s.answers(t, http.StatusForbidden, "bob", post, chat, short); code != "model_not_found" {
			t.Error(code)
		}

		// One stream at each door; the worker of one of them dies.
		native, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "hello", Model: "markov", MaxTokens: 400, Priority: 200})
		if err != nil {
			t.Fatal(err)
		}
		web := s.overHTTP(t, "alice", post, path, long)
		defer web.Body.Close()
		code, header := s.answers(t, http.StatusTooManyRequests, "alice", post, chat, short)
		if code != "rate_limit_exceeded" || header.Get("Retry-After-Ms") != "1000" || header.Get("X-Should-Retry") != "true" ||
			header.Get("X-Ratelimit-Limit-Requests") != "60" || header.Get("X-Ratelimit-Remaining-Requests") != "58" {
			t.Errorf("%s, %v", code, header)
		}
		if o := s.generate(5, nil); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeLimit}) {
			t.Errorf("a third stream: %v", o.err)
		}
		first := make([]byte, 512)
		if _, err := io.ReadFull(web.Body, first); err != nil {
			t.Fatal(err)
		}
		_, id, _ := strings.Cut(string(first), `"response":{`)
		_, id, _ = strings.Cut(id, `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		for _, way := range [][2]string{
			{http.MethodGet, path + "/" + id},
			{http.MethodDelete, path + "/" + id},
			{post, path + "/" + id + "/cancel"},
			{http.MethodGet, path + "/" + id + "/input_items"},
			{http.MethodGet, path + "/" + id + "?stream=true"},
		} {
			s.answers(t, http.StatusNotFound, "bob", way[0], way[1], "")
		}
		s.answers(t, http.StatusOK, "alice", http.MethodGet, path+"/"+id, "")
		p := s.worker("worker-0")
		p.die(p.host.Kill)
		o := readStream(native, nil)
		rest, err := io.ReadAll(web.Body)
		if o.err != nil || err != nil || !strings.Contains(string(rest), `"response.`) || strings.Contains(string(rest), "response.failed") {
			t.Fatalf("%v, %v: %.300s", o.err, err, rest)
		}
		if len(o.swaps) == 0 && !strings.Contains(string(rest), `"swaps":1`) {
			t.Error("nothing was under way at the worker that died")
		}
		time.Sleep(time.Second)
		var ended struct {
			Usage struct {
				Input  int `json:"input_tokens"`
				Output int `json:"output_tokens"`
			}
		}
		resp := s.overHTTP(t, "alice", http.MethodGet, path+"/"+id, "")
		if err := json.NewDecoder(resp.Body).Decode(&ended); err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		for series, want := range map[string]int{
			`connswap_key_requests_total{key="alice"}`:                 2,
			`connswap_key_tokens_total{key="alice",kind="completion"}`: int(o.tokens) + ended.Usage.Output,
			`connswap_key_tokens_total{key="alice",kind="prompt"}`:     2 * ended.Usage.Input, // it is the same
			`connswap_key_requests_total{key="bob"}`:                   0,
		} {
			if got := s.counted(series); got != fmt.Sprint(want) {
				t.Errorf("%s is %s, want %d", series, got, want)
			}
		}
		if ended.Usage.Input == 0 || ended.Usage.Output == 0 {
			t.Errorf("usage is %+v", ended.Usage)
		}

		// What is taken out is out, without a restart; what cannot be read changes nothing.
		if err := os.WriteFile(string(file), []byte("keys: ["), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for range 3 { // what has ended takes no place any more
			s.answers(t, http.StatusOK, "alice", post, chat, short)
		}
		delete(all, "alice")
		file.write(t, all)
		time.Sleep(2 * time.Second)
		s.answers(t, http.StatusUnauthorized, "alice", post, chat, short)
		s.answers(t, http.StatusUnauthorized, "alice", http.MethodGet, path+"/"+id, "")
		nobody("sk-alice")
		if o := s.generate(5, nil); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeUnauthorized}) {
			t.Errorf("over a connection that was there before: %v", o.err)
		}
	})
}

// TestNoKeysIsSaid: a director that serves everybody says so at its start, and one that asks for something does not.
func TestNoKeysIsSaid(t *testing.T) {
	const words = "whoever reaches this director may use it"
	file := keyFile(filepath.Join(t.TempDir(), "keys.yaml"))
	file.write(t, map[string]string{"alice": "priority: 1"})
	for name, c := range map[string]struct {
		director func(*config.Director)
		said     int
	}{
		"open":        {nil, 1},
		"keys":        {func(cfg *config.Director) { cfg.KeysFile = string(file) }, 0},
		"certificate": {func(cfg *config.Director) { cfg.ClientAuth = "certificate" }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			stageAs(t, setup{director: c.director}, func(_ *testing.T, s *scenario) { s.key = "sk-alice" }, func(t *testing.T, s *scenario) {
				if n := s.logged.count(words); n != c.said {
					t.Errorf("said %d times, want %d", n, c.said)
				}
			})
		})
	}
}
