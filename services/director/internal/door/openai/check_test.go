package openai

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
)

// TestNotServed has what is refused before a stream begins, by name: continuity that nobody promises, APIs that a model does not
// answer, models that nobody has, and what is not here at all.
func TestNotServed(t *testing.T) {
	s := New(Config{
		Settings: settings.Fixed(config.Director{MaxBodyBytes: 1 << 10, MaxTokens: 100}), MaxStreams: 1, Events: event.NewBus(),
		Model: func(name string) (string, error) {
			if name == "none" {
				return "", wire.Errorf(wire.CodeModel, "no worker has a model %q", name)
			}
			return "m", nil
		},
		Models:  func() []string { return []string{"m"} },
		Answers: func(_, api string) bool { return api == "embeddings" },
		Promise: func(_ string, least uint32) (uint32, bool) { return 1, least <= 1 }, // text
	}, shares.New(shares.Limits{shares.Requests: 1, shares.Bytes: 1 << 20}), nil, nil, nil, zap.NewNop())
	const hi = `{"messages":[{"role":"user","content":"Hi"}]`
	for _, one := range []struct {
		method, path, body, continuity string
		status                         int
		code, words                    string
	}{
		{"POST", "/v1/chat/completions", hi + `}`, "", 409, "continuity_unavailable", "verified"},
		{"POST", "/v1/chat/completions", hi + `}`, "Exact", 409, "continuity_unavailable", "exact"},
		{"POST", "/v1/chat/completions", hi + `}`, "best", 400, "", "any, text, verified, exact"},
		{"POST", "/v1/chat/completions", hi + `,"model":"none"}`, "any", 404, "model_not_found", "none"},
		{"POST", "/v1/rerank", `{"query":"q"}`, "any", 501, "not_supported", "rerank"},
		{"POST", "/v1/embeddings", `{"input":"x"}`, "exact", 409, "continuity_unavailable", "exact"},
		{"POST", "/v1/images/generations", `{}`, "", 501, "not_supported", "images"},
		{"POST", "/v1/nothing", `{}`, "", 404, "unknown_url", "nothing"},
		{"GET", "/v1/chat/completions", ``, "", 405, "method_not_allowed", "POST"},
		{"POST", "/v1/chat/completions", strings.Repeat("x", 2<<10), "", 413, "request_too_large", "MAX_BODY_BYTES"},
		{"GET", "/v1/responses/resp_1", ``, "", 404, "not_found", "resp_1"},
		{"POST", "/v1/responses", `{"input":"x","previous_response_id":"resp_1"}`, "any", 404, "previous_response_not_found", "resp_1"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), one.method, one.path, strings.NewReader(one.body))
		r.Header.Set("X-Connswap-Continuity", one.continuity)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		said := w.Body.String()
		require.Equal(t, one.status, w.Code, "%s %s: %s", one.method, one.path, said)
		require.Contains(t, said, one.words)
		if one.code != "" {
			require.Contains(t, said, `"code":"`+one.code+`"`)
		}
		if retry := w.Header().Get("X-Should-Retry"); (one.status == http.StatusConflict) != (retry == "false") {
			t.Errorf("%s: whether to try again: %q", said, retry)
		}
	}
}

// TestWordsOfServers has what an inference server says of a request be told as it is, if it is an error in OpenAI's shape, with its
// status, if that says that the request is at fault.
func TestWordsOfServers(t *testing.T) {
	const tooLong = `{"error":{"message":"maximum context length is 4096 tokens","type":"BadRequestError","param":null,"code":400},"more":1}`
	for name, one := range map[string]struct {
		status   int
		document string
		want     int
		body     string
	}{
		"in shape":              {422, tooLong, 422, tooLong},
		"the server's fault":    {500, tooLong, 400, tooLong},
		"no status":             {0, tooLong, 400, tooLong},
		"no error":              {413, `{"detail":"too long"}`, 413, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`},
		"no message":            {400, `{"error":{"code":3}}`, 400, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`},
		"no JSON":               {400, `<html>`, 400, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`},
		"too long for the wire": {400, tooLong + strings.Repeat(" ", wire.MaxDocument), 400, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`},
	} {
		e := &wire.Error{Code: wire.CodeInvalid, Message: "no", Status: one.status, Document: []byte(one.document)}
		w := httptest.NewRecorder()
		failureOf(wire.FromMessage(e.Proto())).write(w)
		require.Equal(t, one.want, w.Code, name)
		require.JSONEq(t, one.body, w.Body.String(), name)
	}
}

// TestOfItsModel has what a request gets that its model has something said of: by its own name, another one, or none.
func TestOfItsModel(t *testing.T) {
	s := &Server{log: zap.NewNop(), cfg: Config{
		Settings: settingsOf(t, "models:\n  m: {aliases: [x], continuity: text, max_tokens: 50}\n  n: {continuity: none}\nlimits: {max_tokens: 100}\n"),
		Model:    func(name string) (string, error) { return cmp.Or(name, "m"), nil },
		Promise:  func(_ string, least uint32) (uint32, bool) { return least, true },
	}}
	for _, one := range []struct {
		model, header string
		tokens        int
		class, most   uint32
		named, wrong  string
	}{
		{"m", "", 0, 1, 50, "m", ""},
		{"x", "", 0, 1, 50, "x", ""},
		{"", "", 0, 1, 50, "m", ""},
		{"x", "exact", 50, 3, 50, "x", ""},
		{"x", "any", 7, 0, 7, "x", ""},
		{"n", "", 100, 0, 100, "n", ""},
		{"n", "text", 0, 1, 100, "n", ""},
		{"o", "", 0, verified, 100, "o", ""},
		{"x", "", 51, 0, 0, "", `max_completion_tokens is 51, this server allows 50 for the model "m"`},
		{"o", "", 101, 0, 0, "", "max_completion_tokens is 101, this server allows 100"},
	} {
		body := `{"messages":[{"role":"user","content":"q"}],"model":"` + one.model + `"}`
		if one.tokens > 0 {
			body = strings.Replace(body, "{", fmt.Sprintf(`{"max_completion_tokens":%d,`, one.tokens), 1)
		}
		now := s.cfg.Settings.Now()
		ask, err := parse(chat, []byte(body), now.Director.MaxTokens)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", nil)
		r.Header.Set("X-Connswap-Continuity", one.header)
		var e *exchange
		if err == nil {
			e = &exchange{ask: ask, named: ask.request.GetModel()}
			err = s.check(e, r, now)
		}
		if one.wrong != "" {
			var f *failure
			require.ErrorAs(t, err, &f)
			require.Equal(t, http.StatusBadRequest, f.status)
			require.Equal(t, "max_completion_tokens", f.param)
			require.Contains(t, f.message, one.wrong)
			continue
		}
		require.NoError(t, err)
		q := ask.request
		require.Equal(t, []uint32{one.class, one.most}, []uint32{q.GetContinuity(), q.GetMaxTokens()}, body)
		require.Equal(t, one.named, e.model())
		require.NotEqual(t, "x", q.GetModel(), "a worker knows its own name")
		require.Contains(t, string(e.head("chat.completion")), `"model":"`+one.named+`"`)
	}
}
