package director

import (
	"encoding/json"
	"flag"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/services/director/internal/operations"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/mgmt"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// endpoint is what openapi.json says of a route beside the types.
type endpoint struct {
	summary string
	query   []string // names of parameters
	body    any      // of the request; nil for none
	answer  any      // its JSON; nil for text
	status  string   // 200 if empty
	public  bool     // health: for everybody
	events  bool     // the answer may be a stream of events
	follows bool     // it is nothing else
}

var endpoints = map[string]endpoint{
	"GET /livez":          {summary: "Whether all parts that do the work do it; if not, which one is stuck", public: true},
	"GET /readyz":         {summary: "Whether clients are served; if not, why", public: true},
	"GET /healthz":        {summary: "The same as /readyz", public: true},
	"GET /openapi.json":   {summary: "This description", answer: map[string]any{}, public: true},
	"GET /v1/status":      {summary: "All at once: the director, its workers, connections and streams, swaps under way", answer: statusDocument{}},
	"GET /v1/workers":     {summary: "Registered workers, by label", query: paged, answer: workersDocument{}},
	"GET /v1/connections": {summary: "Clients' connections, by age", query: paged, answer: connectionsDocument{}},
	"GET /v1/sessions":    {summary: "Streams that run, and those that have ended lately, by age", query: append([]string{"state"}, paged...), answer: sessionsDocument{}},
	"GET /v1/swaps":       {summary: "Swaps that are over, in the order of their ends", query: paged, answer: swapsDocument{}},
	"GET /v1/checkpoints": {summary: "Engines' states that are kept for failovers", answer: checkpointsDocument{}},
	"GET /metrics":        {summary: "Metrics, for Prometheus"},
	"GET /v1/events": {
		summary: "What happens, as it happens: server-sent events, each with one of the objects described; after Last-Event-ID, if that is given",
		query:   []string{"kind", "connection_id", "stream_id", "worker", "Last-Event-ID"}, follows: true,
	},
	"POST /v1/swap":      {summary: "Moves one stream to another worker; the record's state says how it ended", body: swapRequest{}, answer: recordOf, events: true},
	"POST /v1/drain":     {summary: "Takes a worker out of use and moves everything away from it", body: drainRequest{}, answer: movesDocument{}, events: true},
	"POST /v1/undrain":   {summary: "Puts a worker back into use", body: undrainRequest{}, answer: messageDocument{}, events: true},
	"POST /v1/rebalance": {summary: "Moves streams from the fullest to the emptiest workers until they are even", body: rebalanceRequest{}, answer: movesDocument{}, events: true},
	"POST /v1/confirm":   {summary: "Lets a swap go on that waits for an operator", body: confirmRequest{}, answer: messageDocument{}, events: true},
	"POST /v1/veto":      {summary: "Ends a swap before its cut; the stream stays where it is", body: vetoRequest{}, answer: messageDocument{}, events: true},
	"GET /v1/operations/{id}": {
		summary: "How an operation stands; or its events, those after Last-Event-ID", answer: operations.Document{}, events: true,
	},
	"DELETE /v1/operations/{id}": {summary: "Gives an operation up", answer: operations.Document{}, status: "202"},
}

var paged = []string{"limit", "cursor"}

// TestOpenAPI holds the description to the routes and to the types of their answers. That real answers are such e2e/sim
// tests.
func TestOpenAPI(t *testing.T) {
	d := &Director{operations: operations.NewTable(zap.NewNop()), metrics: metrics.New(nil)}
	mux, ok := d.routes(mgmt.Access{Log: zap.NewNop()}).(*mgmt.Mux)
	require.True(t, ok)
	require.ElementsMatch(t, mux.Patterns(), slices.Collect(maps.Keys(endpoints)), "each route is described, and each description has a route")

	b := &schemas{names: schemaNames, all: map[string]any{}, comments: map[string]comments{}}
	paths := map[string]map[string]any{}
	for pattern, e := range endpoints {
		method, path, _ := strings.Cut(pattern, " ")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(method)] = e.describe(b, path)
	}
	document := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "connswap director, MGMT port", "version": "1",
			"description": "For operators: over https, with an operator's certificate or a bearer token. See docs/OPERATIONS.md.",
		},
		"servers":    []any{map[string]any{"url": "https://director.connswap:61001"}},
		"paths":      paths,
		"components": map[string]any{"schemas": b.components(t), "parameters": parameters, "securitySchemes": securitySchemes, "responses": problemResponse(b)},
	}
	text, err := json.MarshalIndent(document, "", "  ")
	require.NoError(t, err)
	text = append(text, '\n')
	if *update {
		require.NoError(t, os.WriteFile("openapi.json", text, 0o644))
		return
	}
	require.Equal(t, string(text), string(openAPI), "openapi.json is old; run: go test ./services/director/director -run TestOpenAPI -update")
}

var parameters = map[string]any{
	"limit":         query("entries of a page", map[string]any{"type": "integer", "minimum": 1, "maximum": mgmt.MaxLimit, "default": 100}),
	"cursor":        query("the next of the page before; none to begin", map[string]any{"type": "string"}),
	"kind":          query("only events of this kind; may be given several times", map[string]any{"type": "array", "items": map[string]any{"enum": event.Kinds}}),
	"connection_id": query("only events of this connection", map[string]any{"type": "string"}),
	"stream_id":     query("only events of streams with this number", map[string]any{"type": "integer", "minimum": 1}),
	"worker":        query("only events of this worker", map[string]any{"type": "string"}),
	"state":         query("only streams in this state; may be given several times", map[string]any{"type": "array", "items": map[string]any{"enum": session.States}}),
	"id":            map[string]any{"name": "id", "in": "path", "required": true, "schema": map[string]any{"type": "string"}},
	"Idempotency-Key": header("a request that is sent again with the same key follows what it has begun; another one is refused with 422",
		map[string]any{"type": "string", "maxLength": 255}),
	"Last-Event-ID": header("the id of the last event that came", map[string]any{"type": "integer", "minimum": 0}),
}

func query(text string, schema map[string]any) map[string]any {
	return parameter("query", text, schema)
}

func header(text string, schema map[string]any) map[string]any {
	return parameter("header", text, schema)
}

func parameter(in, text string, schema map[string]any) map[string]any {
	return map[string]any{"in": in, "description": text, "schema": schema}
}

var securitySchemes = map[string]any{
	"certificate": map[string]any{"type": "mutualTLS", "description": "a certificate of role operator"},
	"token":       map[string]any{"type": "http", "scheme": "bearer", "description": "out of CONNECTION_SWAP_DIRECTOR_OPERATOR_TOKENS_FILE"},
}

func problemResponse(b *schemas) map[string]any {
	return map[string]any{"Problem": map[string]any{"description": "what is wrong, and what to do", "content": content("application/json", b.of(mgmt.Problem{}))}}
}

func content(kind string, schema any) map[string]any {
	return map[string]any{kind: map[string]any{"schema": schema}}
}

func reference(kind, name string) map[string]any {
	return map[string]any{"$ref": "#/components/" + kind + "/" + name}
}

// describe returns the operation object of an endpoint.
func (e endpoint) describe(b *schemas, path string) map[string]any {
	kinds := map[string]any{"text/plain": map[string]any{"schema": map[string]any{"type": "string"}}}
	if e.answer != nil {
		kinds = content("application/json", b.of(e.answer))
	}
	if e.follows {
		kinds = map[string]any{"text/event-stream": map[string]any{"schema": map[string]any{
			"type": "string", "description": "events until the asker leaves: id, event (the kind) and data, a JSON object with id, time, kind, and what there is to say of it",
		}}}
	}
	if e.events {
		kinds["text/event-stream"] = map[string]any{"schema": map[string]any{
			"type": "string", "description": "events: progress, then one result (as in application/json) or error (code and message)",
		}}
	}
	status := e.status
	if status == "" {
		status = "200"
	}
	o := map[string]any{"summary": e.summary, "responses": map[string]any{
		status: map[string]any{"description": http.StatusText(map[string]int{"200": 200, "202": 202}[status]), "content": kinds},
	}}
	if !e.public {
		o["security"] = []any{map[string]any{"certificate": []any{}}, map[string]any{"token": []any{}}}
		o["responses"].(map[string]any)["default"] = reference("responses", "Problem")
	} else if e.answer == nil {
		o["responses"].(map[string]any)["503"] = map[string]any{"description": "No, and why", "content": kinds}
	}
	names := slices.Clone(e.query)
	if strings.Contains(path, "{id}") {
		names = append(names, "id")
		if e.events {
			names = append(names, "Last-Event-ID")
		}
	}
	if e.body != nil {
		names = append(names, "Idempotency-Key")
		o["requestBody"] = map[string]any{"required": true, "content": content("application/json", b.of(e.body))}
	}
	var used []any
	for _, name := range names {
		parameters[name].(map[string]any)["name"] = name
		used = append(used, reference("parameters", name))
	}
	if used != nil {
		o["parameters"] = used
	}
	return o
}
