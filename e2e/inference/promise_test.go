package inference

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/client/connswap"
)

// TestOtherEngine has the same model served by two engines, which a server does not tell apart. What is made again there is compared: a
// greedy text is the same, and goes on as the other engine has it; a drawn one is not, and ends in an error that says so.
func TestOtherEngine(t *testing.T) {
	servers := []*server{startServer(t, "OLLAMA_NEW_ENGINE=0"), startServer(t, "OLLAMA_NEW_ENGINE=1")}
	texts := map[string]string{} // by the worker that would make it
	for i, one := range servers {
		all := one.complete(t, document{"model": "slow", "prompt": prompt, "max_tokens": 60, "temperature": 0})
		texts[labels[i]] = all.text()
	}
	s := startSystem(t, servers, "slow")
	greedy := ask{model: "slow", tokens: 60}
	so := ""
	g := s.read(greedy, func(n int, worker string) {
		if n == 20 {
			s.servers[worker].kill()
		}
	})
	own, other := texts[g.worker], texts[labels[1-strings.Index("ab", g.worker)]]
	for so = other; !strings.HasPrefix(own, so); so = so[:len(so)-1] { //nolint:revive // the beginning that both have
	}
	t.Logf("of %d bytes of a greedy text the first %d are the same", len(own), len(so))
	if strings.Count(so, " ") > 20 {
		require.NoError(t, g.err)
		require.Equal(t, []any{other, int64(60), 1, "verified"}, []any{g.text, g.all, g.swaps, g.resumed})
	} else {
		require.ErrorContains(t, g.err, "not_continued")
	}
	s.servers[g.worker].start()
	require.NoError(t, s.Await(t.Context(), g.worker))

	drawn := greedy
	drawn.temperature, drawn.seed = 2, 3 // so that they differ soon
	g = s.read(drawn, func(n int, worker string) {
		if n == 20 {
			s.servers[worker].kill() // so that nobody has the engine
		}
	})
	require.ErrorContains(t, g.err, "not_continued")
	require.Empty(t, g.finish, "an end that looks complete")
	require.GreaterOrEqual(t, g.pieces, 20)
}

// native has a client of the project's own read, over the same QUIC connection from start to end, what it would have read.
func (s *system) native(t *testing.T) {
	conn, err := s.Dial(t.Context())
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // the test is over
	before, err := conn.Proof()
	require.NoError(t, err)
	texts := [2]string{}
	for i := range texts {
		stream, err := conn.Generate(t.Context(), connswap.Request{Model: "chat", Prompt: "the session of the worker", MaxTokens: 60, Seed: 9})
		require.NoError(t, err)
		n, classes := 0, []string{}
		for event, err := range stream.Events() {
			require.NoError(t, err)
			switch e := event.(type) {
			case connswap.Token:
				texts[i] += e.Text
				if n++; n == 20 && i == 1 {
					s.servers[e.Worker].killRunners()
				}
			case connswap.Swapped:
				classes = append(classes, e.Continuity)
			case connswap.Done:
				require.Equal(t, uint64(60), e.Usage.Completion)
			}
		}
		require.Len(t, classes, i)
	}
	require.Equal(t, texts[0], texts[1])
	after, err := conn.Proof()
	require.NoError(t, err)
	require.Equal(t, before, after, "another QUIC connection")
}

// TestClientLeaves has a request aborted at the server once its client has gone: a server with one place has it free for the next.
func TestClientLeaves(t *testing.T) {
	one := startServer(t, "OLLAMA_NUM_PARALLEL=1")
	s := startSystem(t, []*server{one}, "slow")
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Addr()+"/v1/completions",
		strings.NewReader(`{"model":"slow","prompt":"the session","max_tokens":3000,"stream":true}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = resp.Body.Read(make([]byte, 1))
	require.NoError(t, err)
	before := one.logged(answered)
	leave()
	one.freed(t, time.Now(), before)
}

// rejected has what the server says of a request reach its caller as it is.
func (s *system) rejected(t *testing.T) {
	document := map[string]any{"model": "chat:latest", "messages": []any{map[string]any{"role": "user", "content": []any{map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64,!"}}}}}}
	direct, err := s.servers["a"].post("/v1/chat/completions", document)
	require.NoError(t, err)
	want, err := io.ReadAll(direct.Body)
	require.NoError(t, errors.Join(err, direct.Body.Close()))
	require.Equal(t, http.StatusBadRequest, direct.StatusCode, "%s", want)

	resp, err := http.Post("http://"+s.Addr()+"/v1/chat/completions", "application/json",
		strings.NewReader(strings.Replace(`{"model":"chat","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,!"}}]}]}`, "chat:latest", "chat", 1)))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))
	require.Equal(t, http.StatusBadRequest, resp.StatusCode, "%s", body)
	require.JSONEq(t, string(want), string(body))
}
