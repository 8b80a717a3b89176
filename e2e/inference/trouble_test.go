package inference

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// answerTo is what a client has read of an answer, of whatever kind, event by event.
type answerTo struct {
	events []document
	worker string // that made the beginning
	done   bool
}

// last returns the last event that has something of that name, and it; nil if none has.
func (a answerTo) last(name string) any {
	for i := len(a.events) - 1; i >= 0; i-- {
		if v, ok := a.events[i][name]; ok && v != nil {
			return v
		}
	}
	return nil
}

// choices returns what the choices say under a path of names, joined, and the last reason to finish.
func (a answerTo) choices(names ...string) (text, finish string) {
	for _, e := range a.events {
		list, _ := e["choices"].([]any)
		for _, c := range list {
			choice, _ := c.(document)
			if f, ok := choice["finish_reason"].(string); ok {
				finish = f
			}
			var v any = choice
			for _, name := range names {
				d, _ := v.(document)
				v = d[name]
			}
			switch v := v.(type) {
			case string:
				text += v
			case nil:
			default:
				b, _ := json.Marshal(v) // it was JSON
				text += string(b)
			}
		}
	}
	return text, finish
}

// ask posts a request to the director and reads its events. at is called behind each, with how many there were; it may be nil.
func (s *system) ask(t *testing.T, where string, request document, at func(n int, worker string)) (a answerTo) {
	t.Helper()
	b, err := json.Marshal(request)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Addr()+where, bytes.NewReader(b))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	a.worker = resp.Header.Get("X-Connswap-Worker")
	if resp.StatusCode != http.StatusOK || request["stream"] != true {
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
		one := document{}
		require.NoError(t, json.Unmarshal(body, &one))
		a.events = append(a.events, one)
		return a
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			a.done = true
			continue
		}
		one := document{}
		require.NoError(t, json.Unmarshal([]byte(data), &one))
		a.events = append(a.events, one)
		if at != nil {
			at(len(a.events), a.worker)
		}
	}
	require.NoError(t, lines.Err())
	return a
}

// loseAt has the runner of a stream killed behind so many events.
func (s *system) loseAt(cut int) func(n int, worker string) {
	return func(n int, worker string) {
		if n == cut {
			s.servers[worker].killRunners()
		}
	}
}

// TestAnswers has answers of every kind and shape that the server makes.
func TestAnswers(t *testing.T) {
	s := startSystem(t, []*server{startServer(t), startServer(t)}, "chat")
	t.Run("limits", s.limits)
	t.Run("shapes", s.shapes)
	t.Run("not streamed", s.whole)
}

// shapes has answers of every shape survive the runner: each is as if nothing had happened.
func (s *system) shapes(t *testing.T) {
	messages := []document{{"role": "user", "content": prompt}}
	chat := func(more document) document {
		all := document{"model": "chat", "messages": messages, "max_tokens": 80, "temperature": 0.8, "seed": 3, "stream": true, "stream_options": document{"include_usage": true}}
		for k, v := range more {
			all[k] = v
		}
		return all
	}
	plain := s.ask(t, "/v1/chat/completions", chat(nil), nil)
	text, _ := plain.choices("delta", "content")
	words := strings.Fields(text)
	require.Greater(t, len(words), 60)
	for name, one := range map[string]struct {
		request document
		finish  string
	}{
		"a stop string":     {chat(document{"stop": []string{strings.Join(words[50:52], " ")}}), "stop"},
		"log probabilities": {chat(document{"logprobs": true, "top_logprobs": 2}), "length"},
		"a schema": {chat(document{"response_format": document{"type": "json_schema", "json_schema": document{
			"name": "n", "schema": document{"type": "object", "properties": document{"a": document{"type": "array", "items": document{"type": "integer"}, "minItems": 30}}, "required": []string{"a"}},
		}}}), ""},
		"penalties":         {chat(document{"frequency_penalty": 0.5, "presence_penalty": 0.5}), "length"},
		"a model's default": {document{"model": "chat", "messages": messages, "max_tokens": 80, "stream": true, "stream_options": document{"include_usage": true}, "seed": 5}, "length"},
	} {
		t.Run(name, func(t *testing.T) {
			want := s.ask(t, "/v1/chat/completions", one.request, nil)
			got := s.ask(t, "/v1/chat/completions", one.request, s.loseAt(30))
			for _, names := range [][]string{{"delta", "content"}, {"logprobs"}} {
				a, finish := want.choices(names...)
				b, finished := got.choices(names...)
				require.Equal(t, a, b)
				require.Equal(t, finish, finished)
				if one.finish != "" {
					require.Equal(t, one.finish, finished)
				}
			}
			require.Equal(t, want.last("usage"), got.last("usage"))
			require.True(t, got.done)
			t.Logf("%d events; %v; %v", len(got.events), got.last("usage"), got.last("connswap"))
			require.NoError(t, s.Await(t.Context(), got.worker))
		})
	}
}

// limits has a limit of tokens be one, by each of its names.
func (s *system) limits(t *testing.T) {
	messages := []document{{"role": "user", "content": "the session"}}
	for name, one := range map[string]struct {
		where   string
		request document
	}{
		"max_tokens of a text":  {"/v1/completions", document{"model": "chat", "prompt": "the session", "max_tokens": 12}},
		"max_tokens of a chat":  {"/v1/chat/completions", document{"model": "chat", "messages": messages, "max_tokens": 12}},
		"max_completion_tokens": {"/v1/chat/completions", document{"model": "chat", "messages": messages, "max_completion_tokens": 12}},
		"max_output_tokens":     {"/v1/responses", document{"model": "chat", "input": "the session", "max_output_tokens": 12}},
	} {
		t.Run(name, func(t *testing.T) {
			usage, _ := s.ask(t, one.where, one.request, nil).last("usage").(document)
			require.Contains(t, []any{usage["completion_tokens"], usage["output_tokens"]}, 12.0, "%v", usage)
		})
	}
}

// TestNobodyIsLeft has all servers killed under a stream; it waits, and goes on when one is back.
func TestNobodyIsLeft(t *testing.T) {
	s := startSystem(t, []*server{startServer(t), startServer(t)}, "chat")
	a := ask{model: "chat", tokens: 150, temperature: 0.8, seed: 4}
	want := s.read(a, nil)
	back := make(chan struct{})
	g := s.read(a, func(n int, worker string) {
		if n == 60 {
			for _, one := range s.servers {
				one.kill()
			}
			go func() {
				defer close(back)
				s.servers[worker].start()
			}()
		}
	})
	<-back
	t.Logf("%v of pause, %d swaps", g.gap.Round(time.Millisecond), g.swaps)
	g.same(t, want)
}

// whole has answers that are not streamed survive the runner, too.
func (s *system) whole(t *testing.T) {
	for where, request := range map[string]document{
		"/v1/chat/completions": {"model": "chat", "messages": []document{{"role": "user", "content": "the session"}}, "max_tokens": 300, "temperature": 0.8, "seed": 3},
		"/v1/completions":      {"model": "chat", "prompt": "the session", "max_tokens": 300, "temperature": 0.8, "seed": 3},
		"/v1/responses":        {"model": "chat", "input": "the session", "max_output_tokens": 300, "temperature": 0.8},
	} {
		t.Run(where, func(t *testing.T) {
			want := s.ask(t, where, request, nil)
			lost := make(chan error, 1)
			go func() { lost <- s.loseBusy(50) }()
			got := s.ask(t, where, request, nil)
			require.NoError(t, <-lost)
			t.Logf("%v", got.last("connswap"))
			if where != "/v1/responses" { // whose seed is the director's
				require.Equal(t, want.last("choices"), got.last("choices"))
			}
			require.Equal(t, want.last("usage"), got.last("usage"))
			for label := range s.servers {
				require.NoError(t, s.Await(t.Context(), label))
			}
		})
	}
}

// loseBusy kills the runner of the stream that has so many tokens.
func (s *system) loseBusy(tokens int) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var sessions document
		if err := s.Status("/v1/sessions", &sessions); err != nil {
			return err
		}
		list, _ := sessions["sessions"].([]any)
		for _, one := range list {
			d, _ := one.(document)
			worker, _ := d["worker"].(string)
			if n, _ := d["sequence"].(float64); int(n) >= tokens && s.servers[worker] != nil && d["state"] == "streaming" {
				s.servers[worker].killRunners()
				return nil
			}
		}
	}
	return errors.New("no stream has as many tokens")
}
