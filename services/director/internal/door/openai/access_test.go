package openai

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
)

// doorFor returns a door with two models and one key, "sk-a" of team a, with what the file says of it besides.
func doorFor(t *testing.T, fields string) (*Server, *keys.Keys) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "keys:\n- {name: a, sha256: %x, %s}\n", sha256.Sum256([]byte("sk-a")), fields), 0o600))
	k, _, err := keys.Read(path, zap.NewNop(), nil)
	require.NoError(t, err)
	models := []string{"large", "small"}
	s := &Server{log: zap.NewNop(), kept: kept{byID: map[string]*exchange{}}, cfg: Config{
		Keys: k, Settings: settings.Fixed(config.Director{MaxBodyBytes: 1000, MaxTokens: 100}), Retention: time.Minute,
		Models: func() []string { return models },
		Model: func(name string) (string, error) {
			if !slices.Contains(models, name) {
				return "", wire.Errorf(wire.CodeModel, "no worker has a model %q; there are: large, small", name)
			}
			return name, nil
		},
	}}
	return s, k
}

func visit(s *Server, method, path, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, r)
	return w
}

// errorIn returns the error that an answer is.
func errorIn(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var document struct {
		Error map[string]any `json:"error"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
	return document.Error
}

func TestUnknownKeys(t *testing.T) {
	s, _ := doorFor(t, "priority: 1")
	for authorization, words := range map[string]string{
		"":             "there is no API key; give one in the header Authorization: Bearer KEY",
		"Bearer":       "there is no API key",
		"Bearer ":      "there is no API key",
		"Basic sk-a":   "there is no API key",
		"sk-a":         "there is no API key",
		"Bearer sk-b":  "this API key is not known here",
		"Bearer sk-a,": "this API key is not known here",
	} {
		for _, path := range []string{"/v1/models", "/v1/models/small", "/v1/responses/resp_1", "/v1/streams/x", "/nothing"} {
			w := visit(s, http.MethodGet, path, authorization)
			require.Equal(t, http.StatusUnauthorized, w.Code, "%s %q", path, authorization)
			require.Equal(t, "Bearer", w.Header().Get("Www-Authenticate"))
			said := errorIn(t, w)
			require.Contains(t, said["message"], words)
			require.Equal(t, []any{"invalid_request_error", "invalid_api_key", nil}, []any{said["type"], said["code"], said["param"]})
		}
		require.Equal(t, http.StatusUnauthorized, visit(s, http.MethodPost, "/v1/chat/completions", authorization).Code)
		require.Equal(t, http.StatusOK, visit(s, http.MethodGet, "/health", authorization).Code)
	}
	for _, authorization := range []string{"Bearer sk-a", "bearer sk-a", "BEARER  sk-a "} {
		require.Equal(t, http.StatusOK, visit(s, http.MethodGet, "/v1/models", authorization).Code, authorization)
	}
}

// TestModelsOfAKey: others are not listed, and no word is said of them.
func TestModelsOfAKey(t *testing.T) {
	s, _ := doorFor(t, "models: [small, gone]")
	list := visit(s, http.MethodGet, "/v1/models", "Bearer sk-a").Body.String()
	require.Contains(t, list, `"id":"small"`)
	require.NotContains(t, list, "large")
	require.Equal(t, http.StatusOK, visit(s, http.MethodGet, "/v1/models/small", "Bearer sk-a").Code)
	for name, status := range map[string]int{"gone": http.StatusNotFound, "large": http.StatusForbidden, "unheard-of": http.StatusForbidden} {
		w := visit(s, http.MethodGet, "/v1/models/"+name, "Bearer sk-a")
		require.Equal(t, status, w.Code, name)
		said := errorIn(t, w)
		require.Equal(t, []any{"invalid_request_error", "model_not_found"}, []any{said["type"], said["code"]})
		if name != "large" {
			require.NotContains(t, said["message"], "large")
		}
	}
}

// TestLimitsAreShown: in the headers that clients know, on every answer of a key that has limits.
func TestLimitsAreShown(t *testing.T) {
	s, k := doorFor(t, "requests_per_minute: 2, tokens_per_minute: 600")
	key, _ := k.Authenticate("sk-a")
	grant, err := key.Admit()
	require.NoError(t, err)
	grant.Meter(func() (uint64, uint64) { return 300, 600 })
	grant.Close()
	for _, path := range []string{"/v1/models", "/v1/responses/resp_1"} {
		h := visit(s, http.MethodGet, path, "Bearer sk-a").Header()
		require.Equal(t, []string{"2", "1", "600", "0"}, []string{
			h.Get("x-ratelimit-limit-requests"), h.Get("x-ratelimit-remaining-requests"),
			h.Get("x-ratelimit-limit-tokens"), h.Get("x-ratelimit-remaining-tokens"),
		})
		for of, most := range map[string]time.Duration{"requests": 30 * time.Second, "tokens": 90 * time.Second} {
			reset, err := time.ParseDuration(h.Get("x-ratelimit-reset-" + of))
			require.NoError(t, err)
			require.LessOrEqual(t, reset, most)
			require.Greater(t, reset, most-20*time.Second) // as long as the test may take
		}
	}
	for name := range visit(s, http.MethodGet, "/v1/models", "Bearer sk-b").Header() {
		require.NotContains(t, name, "Ratelimit")
	}
}

// TestRefusalsOfAKey: clients of OpenAI's try again by these headers, and do not where it would be too soon.
func TestRefusalsOfAKey(t *testing.T) {
	for after, want := range map[time.Duration][3]string{
		1500 * time.Millisecond: {"2", "1500", "true"},
		time.Minute:             {"60", "60000", "true"},
		90 * time.Second:        {"90", "90000", "false"},
	} {
		w := httptest.NewRecorder()
		failureOf(&keys.Refusal{Err: wire.Errorf(wire.CodeLimit, "used up"), After: after}).write(w)
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		h := w.Header()
		require.Equal(t, want, [3]string{h.Get("retry-after"), h.Get("retry-after-ms"), h.Get("x-should-retry")})
		said := errorIn(t, w)
		require.Equal(t, []any{"used up", "rate_limit_error", "rate_limit_exceeded"}, []any{said["message"], said["type"], said["code"]})
	}
}

// settingsOf returns those of a file.
func settingsOf(t *testing.T, content string) *settings.Settings {
	t.Helper()
	cfg := config.DefaultDirector()
	cfg.ConfigFile = filepath.Join(t.TempDir(), "director.yaml")
	require.NoError(t, os.WriteFile(cfg.ConfigFile, []byte(content), 0o600))
	s, err := settings.Read(cfg, zap.NewNop(), nil)
	require.NoError(t, err)
	return s
}

// TestAliasesAreModels of their own to who lists them, as long as workers have the model, and the key is good for one of its names.
func TestAliasesAreModels(t *testing.T) {
	const file = "models:\n  large: {aliases: [gpt-4o, small]}\n  gone: {aliases: [past]}\n"
	for fields, want := range map[string]string{
		"priority: 1":               "gpt-4o=large large=large small=large ",
		"models: [large]":           "gpt-4o=large large=large small=large ",
		"models: [gpt-4o]":          "gpt-4o=large ",
		"models: [past, elsewhere]": "",
	} {
		s, _ := doorFor(t, fields)
		s.cfg.Settings = settingsOf(t, file)
		var list struct {
			Data []struct{ ID, Root, Object string }
		}
		require.NoError(t, json.Unmarshal(visit(s, http.MethodGet, "/v1/models", "Bearer sk-a").Body.Bytes(), &list))
		got := ""
		for _, m := range list.Data {
			got += m.ID + "=" + m.Root + " "
		}
		require.Equal(t, want, got, fields)
	}
	s, _ := doorFor(t, "models: [gpt-4o, past]")
	s.cfg.Settings = settingsOf(t, file)
	for name, status := range map[string]int{
		"gpt-4o": http.StatusOK, "past": http.StatusNotFound, "large": http.StatusForbidden, "small": http.StatusForbidden,
	} {
		w := visit(s, http.MethodGet, "/v1/models/"+name, "Bearer sk-a")
		require.Equal(t, status, w.Code, name)
		require.NotContains(t, w.Body.String(), `"gone"`)
	}
	require.Contains(t, visit(s, http.MethodGet, "/v1/models/gpt-4o", "Bearer sk-a").Body.String(), `"root":"large"`)
}

// TestStandbyOfAKey: who may not have a standby is told so, and nothing is begun.
func TestStandbyOfAKey(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		s, _ := doorFor(t, fmt.Sprintf("standby: %v", allowed))
		s.cfg.Answered = func(string, int) {}
		s.shares = shares.New(shares.Limits{shares.Requests: 1, shares.Bytes: 1 << 20})
		s.cfg.Promise = func(_ string, least uint32) (uint32, bool) { return least, least < wire.ContinuityExact } // so that nothing begins in either case
		r := httptest.NewRequest(http.MethodPost, "/v1/completions", strings.NewReader(`{"model":"small","prompt":"x"}`))
		r.Header.Set("Authorization", "Bearer sk-a")
		r.Header.Set("X-Connswap-Standby", "1")
		r.Header.Set("X-Connswap-Continuity", "exact")
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, r)
		want := map[bool]string{false: "standby_not_allowed", true: "continuity_unavailable"}[allowed]
		require.Equal(t, want, errorIn(t, w)["code"])
	}
}
