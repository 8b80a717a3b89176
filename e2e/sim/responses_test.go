package sim

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
)

// recorder says "so", and again each second where it is asked to go on. What it was asked is kept.
type recorder struct{ asked chan engine.Request }

func (recorder) Name() string        { return "recorder" }
func (recorder) Fingerprint() string { return "recorder/1" }

func (e recorder) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	e.asked <- req
	return &soing{made: len(prefix), endless: strings.Contains(req.Prompt, "go on")}, nil
}

type soing struct {
	made    int
	endless bool
}

func (g *soing) Next(ctx context.Context) (engine.Chunk, error) {
	if g.made > 0 && !g.endless {
		return engine.Chunk{}, engine.Finish{Reason: engine.Stop}
	}
	if g.made > 0 {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return engine.Chunk{}, context.Cause(ctx)
		}
	}
	g.made++
	return engine.Chunk{Text: []byte("so")}, nil
}

func (*soing) Close() error { return nil }

// TestResponses: one follows another, is listed, cancelled, deleted, and forgotten in time; the engine is asked with all that was said
// before. What a request says of itself comes back, or goes on to the engine.
func TestResponses(t *testing.T) {
	plain := func(cfg *config.Director) {
		cfg.HTTP, cfg.Origins, cfg.SessionRetention = "plain", []string{"https://page.example"}, time.Minute
	}
	e := recorder{make(chan engine.Request, 10)}
	stage(t, setup{engine: e, director: plain}, func(t *testing.T, s *scenario) {
		f := s.front("web")
		defer f.close()
		type response struct {
			ID, Status string
			Previous   *string `json:"previous_response_id"`
			Output     []struct {
				Content []struct{ Text string }
			}
		}
		ask := func(status int, method, path string, document any, headers ...string) (r response, header http.Header) {
			t.Helper()
			got, err := f.ask(method, path, document, headers...)
			require.NoError(t, err)
			require.Equal(t, status, got.status, got.body)
			if status == http.StatusOK {
				require.NoError(t, json.Unmarshal([]byte(got.body), &r), got.body)
			}
			return r, got.header
		}
		first, _ := ask(200, "POST", "/v1/responses", map[string]any{"input": "one"})
		require.Equal(t, "completed", first.Status)
		<-e.asked

		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		second, header := ask(200, "POST", "/v1/responses", map[string]any{"input": "two", "previous_response_id": first.ID, "other": 7},
			"Traceparent", trace, "X-Request-Id", "mine", "Origin", "https://page.example")
		require.Equal(t, first.ID, *second.Previous)
		require.Equal(t, []string{trace, "mine", "https://page.example"},
			[]string{header.Get("Traceparent"), header.Get("X-Request-Id"), header.Get("Access-Control-Allow-Origin")})
		asked := <-e.asked
		require.Equal(t, trace, asked.Trace)
		require.Equal(t, "two", asked.Prompt)
		var body struct {
			Other    int
			Previous string `json:"previous_response_id"`
			Input    []struct {
				Role    string
				Content []struct{ Text string }
			}
		}
		require.NoError(t, json.Unmarshal(asked.Body, &body))
		said := []string{}
		for _, item := range body.Input {
			said = append(said, item.Role+": "+item.Content[0].Text)
		}
		require.Equal(t, []string{"user: one", "assistant: so", "user: two"}, said)
		require.Equal(t, 7, body.Other)
		require.Empty(t, body.Previous, "no engine knows it")

		listed, err := f.ask("GET", "/v1/responses/"+second.ID+"/input_items", nil)
		require.NoError(t, err)
		require.Less(t, strings.Index(listed.body, `"two"`), strings.Index(listed.body, `"one"`), "the newest first: %s", listed.body)

		running, err := f.open("POST", "/v1/responses", map[string]any{"input": "go on", "stream": true})
		require.NoError(t, err)
		defer running.Body.Close()
		<-e.asked
		var id struct{ Response struct{ ID string } }
		line := make([]byte, 4<<10)
		n, err := running.Body.Read(line)
		require.NoError(t, err)
		_, data, _ := strings.Cut(string(line[:n]), "data: ")
		data, _, _ = strings.Cut(data, "\n")
		require.NoError(t, json.Unmarshal([]byte(data), &id), data)
		s.sleep(3 * time.Second)
		stands, _ := ask(200, "GET", "/v1/responses/"+id.Response.ID, nil)
		require.Equal(t, "in_progress", stands.Status)
		cancelled, _ := ask(200, "POST", "/v1/responses/"+id.Response.ID+"/cancel", nil)
		require.Equal(t, "cancelled", cancelled.Status)
		require.NotEmpty(t, cancelled.Output)
		ask(409, "POST", "/v1/responses", map[string]any{"input": "three", "previous_response_id": id.Response.ID})

		ask(200, "DELETE", "/v1/responses/"+second.ID, nil)
		ask(404, "GET", "/v1/responses/"+second.ID, nil)
		ask(200, "GET", "/v1/responses/"+first.ID, nil)
		s.sleep(2 * time.Minute)
		ask(404, "GET", "/v1/responses/"+first.ID, nil)

		may, err := f.ask("OPTIONS", "/v1/responses", nil, "Origin", "https://page.example", "Access-Control-Request-Method", "POST")
		require.NoError(t, err)
		require.Equal(t, []string{"https://page.example", "GET, POST, DELETE"},
			[]string{may.header.Get("Access-Control-Allow-Origin"), may.header.Get("Access-Control-Allow-Methods")})
		other, err := f.ask("OPTIONS", "/v1/responses", nil, "Origin", "https://else.example", "Access-Control-Request-Method", "POST")
		require.NoError(t, err)
		require.Empty(t, other.header.Get("Access-Control-Allow-Origin"))
	})
}
