package inference

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

// system is a director and workers, each beside a server, and OpenAI's SDK that asks it.
type system struct {
	*testing.T
	*cluster.Cluster
	servers map[string]*server // by the label of their worker
	client  openai.Client
}

const prompt = "the session of the worker"

// labels are those of the workers.
var labels = []string{"a", "b", "c"}

// startSystem starts a worker beside each server, which offers some of its models.
func startSystem(t *testing.T, servers []*server, models ...string) *system {
	t.Helper()
	for i, name := range models {
		models[i] = name + "=" + name + ":latest"
	}
	c, err := cluster.Start(filepath.Join(root, "bin"), len(servers),
		"CONNECTION_SWAP_DIRECTOR_HTTP=plain", "CONNECTION_SWAP_WORKER_ENGINE=upstream", "CONNECTION_SWAP_LOG_LEVEL=info",
		"CONNECTION_SWAP_WORKER_UPSTREAM_MODELS="+strings.Join(models, ","), "CONNECTION_SWAP_DIRECTOR_MAX_SWAPS_PER_MINUTE=1000")
	require.NoError(t, err)
	c.Patience = 2 * time.Minute // models are loaded, and tried
	s := &system{T: t, Cluster: c, servers: map[string]*server{}}
	kept.add(c.Director.Process.Pid)
	kept.remove(c.Dir)
	t.Cleanup(func() {
		c.Stop()
		kept.forget(c.Director.Process.Pid)
		for _, w := range c.Workers {
			kept.forget(w.Process.Pid)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
	})
	for i, one := range servers {
		s.servers[labels[i]] = one
		s.launch(labels[i])
	}
	for label := range s.servers {
		require.NoError(t, s.Await(context.Background(), label))
	}
	s.client = openai.NewClient(option.WithBaseURL("http://"+c.Addr()+"/v1"), option.WithAPIKey("any"), option.WithMaxRetries(0))
	return s
}

// work starts a worker, and waits until it is available.
func (s *system) work(label string) {
	s.Helper()
	s.launch(label)
	require.NoError(s, s.Await(context.Background(), label))
}

func (s *system) launch(label string) {
	s.Helper()
	if old := s.Workers[label]; old != nil {
		kept.forget(old.Process.Pid)
	}
	require.NoError(s, s.Launch(label, "CONNECTION_SWAP_WORKER_UPSTREAM_URL="+s.servers[label].path.url()))
	kept.add(s.Workers[label].Process.Pid)
}

// ask is a request for text.
type ask struct {
	model       string
	chat        bool
	tokens      int64
	temperature float64
	seed        int64
}

// got is what a client has of an answer.
type got struct {
	text        string
	finish      string
	prompt, all int64 // tokens, by the usage
	swaps       int
	continuity  string // promised
	worker      string // that made the beginning
	resumed     string // how it was gone on with
	gap         time.Duration
	pieces      int
	err         error
}

// same fails unless two answers are the same to their clients.
func (g got) same(t *testing.T, want got) {
	t.Helper()
	require.NoError(t, g.err)
	require.Equal(t, want.text, g.text)
	require.Equal(t, []any{want.finish, want.prompt, want.all}, []any{g.finish, g.prompt, g.all}, "finish and usage")
}

// read reads an answer to its end. at is called behind each piece, with how many there were and who made the first.
func (s *system) read(a ask, at func(n int, worker string), headers ...string) (g got) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var resp *http.Response
	options := []option.RequestOption{option.WithResponseInto(&resp)}
	for i := 0; i < len(headers); i += 2 {
		options = append(options, option.WithHeader(headers[i], headers[i+1]))
	}
	outcome := func(raw string) { // beside the usage
		var said struct {
			Swaps      int
			GapMS      float64 `json:"gap_ms"`
			Continuity string
		}
		if raw != "" && json.Unmarshal([]byte(raw), &said) == nil {
			g.swaps, g.resumed, g.gap = said.Swaps, said.Continuity, time.Duration(said.GapMS*float64(time.Millisecond))
		}
	}
	took := func(text, finish string, prompt, all int64) {
		if finish != "" {
			g.finish = finish
		}
		if all > 0 {
			g.prompt, g.all = prompt, all
		}
		if text == "" {
			return
		}
		g.text += text
		if g.pieces++; at != nil {
			at(g.pieces, resp.Header.Get("X-Connswap-Worker"))
		}
	}
	usage := openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	if a.chat {
		stream := s.client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
			Model: a.model, MaxTokens: openai.Int(a.tokens), Temperature: openai.Float(a.temperature), Seed: openai.Int(a.seed), StreamOptions: usage,
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
		}, options...)
		for stream.Next() {
			c := stream.Current()
			text, finish := "", ""
			if len(c.Choices) > 0 {
				text, finish = c.Choices[0].Delta.Content, c.Choices[0].FinishReason
			}
			outcome(c.JSON.ExtraFields["connswap"].Raw())
			took(text, finish, c.Usage.PromptTokens, c.Usage.CompletionTokens)
		}
		g.err = stream.Err()
	} else {
		stream := s.client.Completions.NewStreaming(ctx, openai.CompletionNewParams{
			Model: openai.CompletionNewParamsModel(a.model), MaxTokens: openai.Int(a.tokens), Temperature: openai.Float(a.temperature), Seed: openai.Int(a.seed),
			StreamOptions: usage, Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(prompt)},
		}, options...)
		for stream.Next() {
			c := stream.Current()
			text, finish := "", ""
			if len(c.Choices) > 0 {
				text, finish = c.Choices[0].Text, string(c.Choices[0].FinishReason)
			}
			outcome(c.JSON.ExtraFields["connswap"].Raw())
			took(text, finish, c.Usage.PromptTokens, c.Usage.CompletionTokens)
		}
		g.err = stream.Err()
	}
	if resp != nil {
		g.continuity, g.worker = resp.Header.Get("X-Connswap-Continuity"), resp.Header.Get("X-Connswap-Worker")
	}
	if g.err == nil && g.finish == "" {
		g.err = fmt.Errorf("the answer ended without a reason to finish behind %d pieces", g.pieces)
	}
	return g
}

// many reads so many answers at once, each with a seed of its own, and calls fault, once, when one of them has so many pieces.
func (s *system) many(n int, a ask, after int, fault func(worker string)) []got {
	var once sync.Once
	all := make([]got, n)
	var reading sync.WaitGroup
	for i := range n {
		reading.Go(func() {
			one := a
			one.seed += int64(i)
			all[i] = s.read(one, func(pieces int, worker string) {
				if fault != nil && pieces >= after {
					once.Do(func() { fault(worker) })
				}
			})
		})
	}
	reading.Wait()
	return all
}
