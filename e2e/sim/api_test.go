package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// api is an operator who speaks HTTP by hand.
type api struct {
	*scenario

	transport *http.Transport
}

func (s *scenario) api() *api {
	desk := s.net.Host("desk")
	a := &api{scenario: s, transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, addr string) (net.Conn, error) { return desk.DialStream(ctx, addr) },
		TLSClientConfig: identity.ClientTLS(s.sources[identity.Operator], identity.HTTP, identity.Director),
	}}
	s.t.Cleanup(a.transport.CloseIdleConnections)
	return a
}

// send makes a request; headers are pairs.
func (a *api) send(ctx context.Context, method, path, body string, headers ...string) *http.Response {
	a.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://director:61001"+path, strings.NewReader(body))
	require.NoError(a.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := a.transport.RoundTrip(req)
	require.NoError(a.t, err)
	return resp
}

// ask makes a request and reads the whole answer.
func (a *api) ask(method, path, body string, headers ...string) (int, string) {
	a.t.Helper()
	resp := a.send(a.ctx, method, path, body, headers...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	return resp.StatusCode, string(text)
}

// happening is one event of a stream.
type happening struct{ id, event, data string }

// events reads a stream of events to its end, or until enough says that it is.
func events(body io.Reader, enough func(happening) bool) (all []happening, comments int) {
	var one happening
	for lines := bufio.NewScanner(body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			one.id = value
		case "event":
			one.event = value
		case "data":
			one.data = value
		case "":
			if value != "" {
				comments++
			} else if one.event != "" {
				if all = append(all, one); enough != nil && enough(one) {
					return all, comments
				}
				one = happening{}
			}
		}
	}
	return all, comments
}

var eventStream = []string{"Accept", "text/event-stream"}

// TestAPI does everything that an operator may do, over HTTP.
func TestAPI(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		a := s.api()
		done := s.inBackground("p", 200)
		time.Sleep(time.Second)
		id := s.conn.ID()

		status, body := a.ask(http.MethodPost, "/v1/swap", fmt.Sprintf(`{"connection_id": %q}`, id))
		var record migration.Record
		require.NoError(t, json.Unmarshal([]byte(body), &record))
		require.Equal(t, http.StatusOK, status, body)
		require.Equal(t, "Completed", record.State)

		resp := a.send(s.ctx, http.MethodPost, "/v1/swap", fmt.Sprintf(`{"connection_id": %q, "stream_id": 1, "to_worker": %q}`, id, record.From), eventStream...)
		all, _ := events(resp.Body, nil)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
		require.Len(t, all, 1)
		require.Equal(t, "result", all[0].event)
		require.Contains(t, all[0].data, `"state":"Completed"`)

		status, body = a.ask(http.MethodPost, "/v1/drain", fmt.Sprintf(`{"worker": %q, "timeout_ms": 60000}`, record.From))
		require.Equal(t, http.StatusOK, status, body)
		require.JSONEq(t, `{"remaining": 0, "moved": 1, "failed": 0}`, body)
		status, body = a.ask(http.MethodPost, "/v1/undrain", fmt.Sprintf(`{"worker": %q}`, record.From))
		require.JSONEq(t, fmt.Sprintf(`{"message": "%s is back in use"}`, record.From), body)
		require.Equal(t, http.StatusOK, status)
		status, body = a.ask(http.MethodPost, "/v1/rebalance", `{}`)
		require.Equal(t, http.StatusOK, status)
		require.JSONEq(t, `{"remaining": 0, "moved": 0, "failed": 0}`, body)
		for _, what := range []string{"confirm", "veto"} {
			status, body = a.ask(http.MethodPost, "/v1/"+what, fmt.Sprintf(`{"connection_id": %q}`, id))
			require.Equal(t, http.StatusNotFound, status, body)
		}
		o := <-done
		require.NoError(t, o.err)
		require.Len(t, o.swaps, 3)
	})
}

// TestAPIRefuses sends what cannot be done. Each answer says what to do.
func TestAPIRefuses(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		a := s.api()
		for name, c := range map[string]struct {
			path, body string
			headers    []string
			status     int
			words      string
		}{
			"no JSON":           {"swap", `connection_id=x`, nil, 400, "it is a JSON object with the fields connection_id, stream_id, to_worker"},
			"a list":            {"drain", `[]`, nil, 400, "it is a JSON object with the fields worker, timeout_ms, force"},
			"a form":            {"undrain", `worker=a`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "Content-Type: application/json"},
			"a misspelt field":  {"drain", `{"worker": "worker-0", "timeout": 5}`, nil, 400, `unknown field \"timeout\"`},
			"of another type":   {"drain", `{"worker": 5}`, nil, 400, "worker of type string"},
			"below 0":           {"drain", `{"worker": "worker-0", "timeout_ms": -5}`, nil, 400, "uint64"},
			"two objects":       {"rebalance", `{}{}`, nil, 400, "something follows the object"},
			"half an object":    {"rebalance", `{`, nil, 400, "EOF"},
			"what it has none":  {"rebalance", `{"x": 1}`, nil, 400, "no fields: {}"},
			"nothing":           {"undrain", ` `, nil, 400, "EOF"},
			"too much":          {"veto", `{"reason": "` + strings.Repeat("x", 17<<10) + `"}`, nil, 413, "more than 16384 bytes"},
			"no worker":         {"drain", `{}`, nil, 400, "worker is missing"},
			"an unknown worker": {"undrain", `{"worker": "worker-9"}`, nil, 404, "worker-9"},
			"no connection":     {"swap", `{}`, nil, 400, "connection_id is missing"},
			"an unknown one":    {"confirm", `{"connection_id": "conn-x"}`, nil, 404, "conn-x"},
			"controls":          {"veto", `{"connection_id": "conn-\u001b[2J"}`, nil, 404, "conn- [2J"},
			"a strange key":     {"rebalance", `{}`, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "255 characters"},
		} {
			status, body := a.ask(http.MethodPost, "/v1/"+c.path, c.body, c.headers...)
			require.Equal(t, c.status, status, "%s: %s", name, body)
			require.Contains(t, body, c.words, name)
			require.Contains(t, body, `{"error":{"code":"`, name)
		}
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			status, body := a.ask(method, "/v1/operations/op-1", "")
			require.Equal(t, http.StatusNotFound, status, body)
		}
	})
}

// full has two workers with room for one stream each: a drain of one waits.
var full = setup{worker: func(cfg *config.Worker) { cfg.Capacity = 1 }}

// TestAPIResumes loses the connection in the middle of a drain and follows it on another one, to its end.
func TestAPIResumes(t *testing.T) {
	stage(t, full, func(t *testing.T, s *scenario) {
		a := s.api()
		first := s.inBackground("a", 300) // at worker-0
		time.Sleep(time.Second)
		second := s.inBackground("b", 1000)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(s.ctx)
		resp := a.send(ctx, http.MethodPost, "/v1/drain", `{"worker": "worker-1"}`, append(eventStream, "Idempotency-Key", "k")...)
		all, _ := events(resp.Body, func(happening) bool { return true })
		where := resp.Header.Get("Location")
		cancel()
		require.NoError(t, resp.Body.Close())
		require.Len(t, all, 1)
		require.Equal(t, "progress", all[0].event)
		require.Contains(t, all[0].data, "all workers are full")

		time.Sleep(9 * time.Second)
		status, body := a.ask(http.MethodGet, where, "")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, body, `"state":"running","progress":{"remaining":1,`)
		resp = a.send(s.ctx, http.MethodGet, where, "", append(eventStream, "Last-Event-ID", all[0].id)...)
		require.NoError(t, (<-first).err) // makes room
		more, comments := events(resp.Body, nil)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "result", more[len(more)-1].event)
		require.NotContains(t, fmt.Sprint(more), all[0].data, "what came before does not come again")
		require.JSONEq(t, `{"remaining": 0, "moved": 1, "failed": 0}`, more[len(more)-1].data)
		require.Greater(t, comments, 0, "a word now and then")

		status, body = a.ask(http.MethodPost, "/v1/drain", `{"worker":"worker-1"}`, "Idempotency-Key", "k")
		require.Equal(t, http.StatusOK, status, "the same request again")
		require.JSONEq(t, more[len(more)-1].data, body)
		status, _ = a.ask(http.MethodPost, "/v1/drain", `{"worker":"worker-0"}`, "Idempotency-Key", "k")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		status, body = a.ask(http.MethodGet, where, "")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, body, `"state":"done"`)
		require.NoError(t, (<-second).err)
	})
}

// TestAPIGivesUp leaves a drain alone, and gives another one up in so many words.
func TestAPIGivesUp(t *testing.T) {
	stage(t, full, func(t *testing.T, s *scenario) {
		a := s.api()
		first, second := s.inBackground("a", 1000), s.inBackground("b", 1000)
		time.Sleep(time.Second)
		begin := func() (where string, leave func()) {
			ctx, cancel := context.WithCancel(s.ctx)
			resp := a.send(ctx, http.MethodPost, "/v1/drain", `{"worker": "worker-1"}`, eventStream...) //nolint:bodyclose // leave does
			return resp.Header.Get("Location"), func() { cancel(); resp.Body.Close() }
		}
		where, leave := begin()
		time.Sleep(time.Minute / 6)
		leave()
		time.Sleep(9900 * time.Millisecond)
		_, body := a.ask(http.MethodGet, where, "")
		require.Contains(t, body, `"state":"running"`)
		time.Sleep(200 * time.Millisecond)
		_, body = a.ask(http.MethodGet, where, "")
		require.Contains(t, body, `"state":"failed"`)
		require.Contains(t, body, "the operator gave it up with 1 stream still on worker-1")

		where, leave = begin()
		status, body := a.ask(http.MethodDelete, where, "")
		require.Equal(t, http.StatusAccepted, status, body)
		time.Sleep(10 * time.Millisecond)
		_, body = a.ask(http.MethodGet, where, "")
		require.Contains(t, body, `"state":"failed"`)
		leave()
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-second).err)
	})
}

// TestAPIAtTheEnd stops the director while an operator waits.
func TestAPIAtTheEnd(t *testing.T) {
	stage(t, full, func(t *testing.T, s *scenario) {
		a := s.api()
		first, second := s.inBackground("a", 3000), s.inBackground("b", 3000)
		time.Sleep(time.Second)
		resp := a.send(s.ctx, http.MethodPost, "/v1/drain", `{"worker": "worker-1"}`, eventStream...)
		time.AfterFunc(time.Second, s.hurryDirector)
		all, _ := events(resp.Body, nil)
		require.NoError(t, resp.Body.Close())
		last := all[len(all)-1]
		require.Contains(t, []string{"error", "result"}, last.event) // its streams end first, and with them the drain
		require.Error(t, (<-first).err)
		require.Error(t, (<-second).err)
	})
}

// TestLists follows the lists with the Go package, over several pages.
func TestLists(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		const streams = 250
		for range streams {
			_, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 1})
			require.NoError(t, err)
		}
		time.Sleep(time.Second)
		op, seen := s.operate(), map[uint64]bool{}
		for one, err := range op.Sessions(s.ctx, "done", "streaming") {
			require.NoError(t, err)
			require.Equal(t, s.conn.ID(), one.ConnectionID)
			seen[one.StreamID] = true
		}
		require.Len(t, seen, streams)
		n := 0
		for _, err := range op.Swaps(s.ctx) { // of placements
			require.NoError(t, err)
			if n++; n == 120 {
				break
			}
		}
		var labels []string
		for one, err := range op.Workers(s.ctx) {
			require.NoError(t, err)
			labels = append(labels, one.Worker)
		}
		require.Equal(t, []string{"worker-0", "worker-1"}, labels)
		for one, err := range op.Connections(s.ctx) {
			require.NoError(t, err)
			require.Equal(t, s.conn.ID(), one.ConnectionID)
		}
		for _, err := range op.Sessions(s.ctx, "nonsense") {
			require.ErrorIs(t, err, &wire.Error{Code: wire.CodeInvalid})
		}
	})
}
