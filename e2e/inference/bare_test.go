package inference

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// What the ways to go on rely on, held down at a server itself.

// said is a stream as a server has sent it.
type said struct {
	pieces []string // that have text
	finish string
	done   bool // it said [DONE]
	tokens int  // by its usage
}

func (s said) text() string { return strings.Join(s.pieces, "") }

// stream asks the server for a completion. at is called behind each piece; it may be nil.
func (s *server) stream(t *testing.T, request document, at func(n int)) (all said, err error) {
	t.Helper()
	request["stream"], request["stream_options"] = true, document{"include_usage": true}
	resp, err := s.post("/v1/completions", request)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			all.done = true
			continue
		}
		var chunk struct {
			Choices []struct {
				Text         string
				FinishReason string `json:"finish_reason"`
			}
			Usage struct {
				Completion int `json:"completion_tokens"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(data), &chunk))
		all.tokens = max(all.tokens, chunk.Usage.Completion)
		for _, c := range chunk.Choices {
			if c.FinishReason != "" {
				all.finish = c.FinishReason
			}
			if c.Text == "" {
				continue
			}
			all.pieces = append(all.pieces, c.Text)
			if at != nil {
				at(len(all.pieces))
			}
		}
	}
	return all, lines.Err()
}

// complete asks for a completion that has its end.
func (s *server) complete(t *testing.T, request document) said {
	t.Helper()
	all, err := s.stream(t, request, nil)
	require.NoError(t, err)
	require.True(t, all.done)
	require.NotEmpty(t, all.finish)
	return all
}

// logged returns how often the server's log has a text.
func (s *server) logged(text string) int {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	require.NoError(s, err)
	return strings.Count(string(b), text)
}

// TestLostRunnerLooksLikeAnEnd has a stream whose runner is killed end as if all were well, but for its reason to finish.
func TestLostRunnerLooksLikeAnEnd(t *testing.T) {
	s := startServer(t)
	all, err := s.stream(t, document{"model": "slow", "prompt": "the session", "max_tokens": 200}, func(n int) {
		if n == 20 {
			s.killRunners()
		}
	})
	require.NoError(t, err, "the body has its end")
	require.Less(t, len(all.pieces), 200)
	require.Empty(t, all.finish)
	require.False(t, all.done)
}

// TestPromptOfIDs has the server reject a prompt of ids.
func TestPromptOfIDs(t *testing.T) {
	resp, err := startServer(t).post("/v1/completions", document{"model": "words", "prompt": []int{1, 2, 3}, "max_tokens": 1})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

// TestSameSeedSameText has a drawn text come again with its seed: at the same server, at another one, and after a new start, alone and
// beside others.
func TestSameSeedSameText(t *testing.T) {
	s, other := startServer(t), startServer(t, "OLLAMA_NUM_PARALLEL=4")
	request := func(seed int) document {
		return document{"model": "words", "prompt": prompt, "max_tokens": 64, "temperature": 0.8, "seed": seed}
	}
	want := s.complete(t, request(7))
	require.Equal(t, want, s.complete(t, request(7)))
	require.NotEqual(t, want, s.complete(t, request(8)))
	s.kill()
	s.start()
	require.Equal(t, want, s.complete(t, request(7)))

	texts := make(chan string, 4)
	for range cap(texts) {
		go func() {
			all, err := other.stream(t, request(7), nil)
			texts <- all.text() + fmt.Sprint(err)
		}()
	}
	for range cap(texts) {
		require.Equal(t, want.text()+fmt.Sprint(nil), <-texts)
	}
}

// TestEnginesAgree has two engines, which have the same weights, make greedy texts that are mostly the same, each always the same, and drawn
// ones that are not. What is made by the other one has to be compared, whatever the request.
func TestEnginesAgree(t *testing.T) {
	one, other := startServer(t, "OLLAMA_NEW_ENGINE=0"), startServer(t, "OLLAMA_NEW_ENGINE=1")
	same := map[float64]int{}
	for _, model := range []string{"words", "frag", "utf8"} {
		for seed, text := range []string{prompt, "a relay", "before and after"} {
			for _, temperature := range []float64{0, 0.8} {
				request := document{"model": model, "prompt": text, "max_tokens": 64, "temperature": temperature, "seed": seed + 1}
				want := one.complete(t, request).text()
				require.Equal(t, want, one.complete(t, request).text())
				if other.complete(t, request).text() == want {
					same[temperature]++
				}
			}
		}
	}
	t.Logf("of 9 texts each are the same: %d greedy ones, %d drawn ones", same[0], same[0.8])
	require.Greater(t, same[0], same[0.8])
	require.Less(t, same[0.8], 9, "they are the same engine")
}

// TestCharactersComeWhole has characters of several tokens come in one piece, wherever the limit of tokens is.
func TestCharactersComeWhole(t *testing.T) {
	s := startServer(t)
	request := document{"model": "utf8", "prompt": prompt, "max_tokens": 256, "temperature": 0.8, "seed": 5}
	whole := s.complete(t, request)
	require.Contains(t, whole.text(), "\xf0\x9f\x98", "there is no such character in it")
	require.Less(t, len(whole.pieces), whole.tokens)
	for _, piece := range whole.pieces {
		require.True(t, utf8.ValidString(piece), "%q", piece)
	}
	first := strings.Index(whole.text(), "\xf0\x9f\x98")
	cut := 0
	for n := 1; n <= 24; n++ {
		request["max_tokens"] = n
		part := s.complete(t, request)
		require.True(t, utf8.ValidString(part.text()), "%q", part.text())
		require.True(t, strings.HasPrefix(whole.text(), part.text()), "%q", part.text())
		if len(part.text()) <= first && n > cut {
			cut = n
		}
	}
	t.Logf("%d tokens in %d pieces; the first such character is behind %d tokens", whole.tokens, len(whole.pieces), cut)
}

// TestLeavingFreesTheServer has a request end at the server, by its own word, once its client has gone.
func TestLeavingFreesTheServer(t *testing.T) {
	s := startServer(t, "OLLAMA_NUM_PARALLEL=1")
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr()+"/v1/completions",
		strings.NewReader(`{"model":"slow","prompt":"the session","max_tokens":3000,"stream":true}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	require.NoError(t, err)
	require.Zero(t, s.logged(answered))
	leave()
	s.freed(t, time.Now(), 0)
}

// answered is what a server logs when a request for a completion has ended there, for whatever reason.
const answered = `"/v1/completions"`

// freed waits until the server says that one more request has ended than before, and has another one made, which finds a place.
func (s *server) freed(t *testing.T, left time.Time, before int) {
	t.Helper()
	require.Eventually(t, func() bool { return s.logged(answered) > before }, 5*time.Second, time.Millisecond, "the server goes on with the request")
	t.Logf("the request had ended at the server %v after its client had left", time.Since(left).Round(time.Millisecond))
	s.complete(t, document{"model": "slow", "prompt": "the worker", "max_tokens": 1})
	t.Logf("another one, for a token, was answered after %v", time.Since(left).Round(time.Millisecond))
}
