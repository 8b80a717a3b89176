package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// description is an OpenAPI document, with validators for what it has.
type description struct {
	*api

	compiler *jsonschema.Compiler
	Paths    map[string]map[string]struct {
		Responses map[string]any `json:"responses"`
		Body      any            `json:"requestBody"`
	} `json:"paths"`
}

// describe asks for the description.
func (a *api) describe() *description {
	a.t.Helper()
	status, text := a.ask(http.MethodGet, "/openapi.json", "")
	require.Equal(a.t, http.StatusOK, status)
	d := &description{api: a, compiler: jsonschema.NewCompiler()}
	require.NoError(a.t, json.Unmarshal([]byte(text), d))
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(a.t, err)
	d.compiler.AssertFormat()
	require.NoError(a.t, d.compiler.AddResource("openapi.json", document))
	return d
}

// valid checks a JSON text against the schema at a place in the document.
func (d *description) valid(text string, place ...string) {
	d.t.Helper()
	pointer := "openapi.json#"
	for _, part := range place {
		pointer += "/" + strings.ReplaceAll(strings.ReplaceAll(part, "~", "~0"), "/", "~1")
	}
	schema, err := d.compiler.Compile(pointer)
	require.NoError(d.t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
	require.NoError(d.t, err, text)
	require.NoError(d.t, schema.Validate(value), "%v: %s", place, text)
}

// exchange makes a request as described, and checks the answer.
func (d *description) exchange(method, path, body string, want int) string {
	d.t.Helper()
	described, _, _ := strings.Cut(path, "?")
	if strings.HasPrefix(path, "/v1/operations/") {
		described = "/v1/operations/{id}"
	}
	lower := strings.ToLower(method)
	if body != "" {
		d.valid(body, "paths", described, lower, "requestBody", "content", "application/json", "schema")
	}
	status, text := d.ask(method, path, body)
	require.Equal(d.t, want, status, "%s %s: %s", method, path, text)
	if want >= 400 {
		d.valid(text, "components", "responses", "Problem", "content", "application/json", "schema")
	} else if described != "/livez" && described != "/readyz" && described != "/healthz" && described != "/metrics" {
		d.valid(text, "paths", described, lower, "responses", fmt.Sprint(want), "content", "application/json", "schema")
	}
	return text
}

// TestOpenAPI makes each request that is described, of a director that has work, and checks what it gets.
func TestOpenAPI(t *testing.T) {
	stage(t, setup{worker: engineSetups["stateful"]}, func(t *testing.T, s *scenario) {
		d := s.api().describe()
		ended := <-s.inBackground("over", 5)
		require.NoError(t, ended.err)
		running := s.inBackground("p", 1000)
		time.Sleep(10 * time.Second) // until there are checkpoints
		one := fmt.Sprintf(`{"connection_id": %q, "stream_id": 2}`, s.conn.ID())

		made := map[string]bool{}
		exchange := func(method, path, body string, want int) string {
			described, _, _ := strings.Cut(path, "?")
			if strings.HasPrefix(path, "/v1/operations/") {
				described = "/v1/operations/{id}"
			}
			made[strings.ToLower(method)+" "+described] = true
			return d.exchange(method, path, body, want)
		}
		exchange(http.MethodPost, "/v1/swap", one, 200)
		exchange(http.MethodPost, "/v1/swap", `{"connection_id": "conn-x"}`, 404)
		exchange(http.MethodPost, "/v1/confirm", one, 404)
		exchange(http.MethodPost, "/v1/veto", `{"connection_id": "conn-x", "reason": "no"}`, 404)
		exchange(http.MethodPost, "/v1/drain", `{"worker": "worker-0", "timeout_ms": 60000, "force": false}`, 200)
		exchange(http.MethodPost, "/v1/undrain", `{"worker": "worker-0"}`, 200)
		exchange(http.MethodPost, "/v1/rebalance", `{}`, 200)
		for _, path := range []string{"/livez", "/readyz", "/healthz", "/openapi.json", "/v1/status", "/v1/checkpoints", "/metrics"} {
			exchange(http.MethodGet, path, "", 200)
		}
		for _, list := range []string{"workers", "connections", "sessions", "swaps"} {
			text := exchange(http.MethodGet, "/v1/"+list+"?limit=1", "", 200)
			require.Regexp(t, `\{\n      "`, text, "none of the lists is empty")
			exchange(http.MethodGet, "/v1/"+list+"?cursor=x", "", 400)
		}
		exchange(http.MethodGet, "/v1/sessions?state=done&state=streaming", "", 200)
		exchange(http.MethodGet, "/v1/sessions?state=x", "", 400)
		exchange(http.MethodGet, "/v1/status?limit=1", "", 400)

		exchange(http.MethodGet, "/v1/events?kind=x", "", 400)
		exchange(http.MethodGet, "/v1/events?stream_id=x", "", 400)

		resp := d.send(s.ctx, http.MethodPost, "/v1/rebalance", `{}`, eventStream...)
		all, _ := events(resp.Body, nil)
		require.NoError(t, resp.Body.Close())
		d.valid(all[len(all)-1].data, "paths", "/v1/rebalance", "post", "responses", "200", "content", "application/json", "schema")
		exchange(http.MethodGet, resp.Header.Get("Location"), "", 200)
		exchange(http.MethodDelete, resp.Header.Get("Location"), "", 202)
		exchange(http.MethodGet, "/v1/operations/op-x", "", 404)

		var described []string
		for path, methods := range d.Paths {
			for method := range methods {
				described = append(described, method+" "+path)
			}
		}
		var tried []string
		for one := range made {
			tried = append(tried, one)
		}
		slices.Sort(tried)
		require.ElementsMatch(t, described, tried)
		require.NoError(t, (<-running).err)
	})
}
