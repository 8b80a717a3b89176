package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// handler answers a request, or returns why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes are all that is answered.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, h handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			switch err := h(w, r); {
			case errors.Is(err, errBroken):
				panic(http.ErrAbortHandler) //nolint:forbidigo // that is how net/http is told to break off an answer
			case err != nil:
				s.refuse(w, r, err)
			}
		})
	}
	handle := func(pattern string, h handler) { open(pattern, s.withKey(h)) }
	apis := map[string]api{"chat/completions": chat, "completions": completions, "responses": responses}
	for _, name := range wire.APIs {
		apis[name] = api(name)
	}
	for path, of := range apis {
		handle("POST /v1/"+path, func(w http.ResponseWriter, r *http.Request) error {
			err := s.generate(w, r, of)
			if err != nil && !errors.Is(err, errBroken) {
				s.cfg.Answered(string(of), failureOf(err).status)
			}
			return err
		})
	}
	handle("GET /v1/models", s.listModels)
	handle("GET /v1/models/{id...}", s.showModel)
	handle("GET /v1/responses/{id}", s.showResponse)
	handle("DELETE /v1/responses/{id}", s.deleteResponse)
	handle("POST /v1/responses/{id}/cancel", s.cancelResponse)
	handle("GET /v1/responses/{id}/input_items", s.listInput)
	handle("GET /v1/streams/{id}", s.resumeStream)
	handle("DELETE /v1/streams/{id}", s.deleteStream)
	open("GET /health", s.health)
	handle("/", s.unknown(mux))
	return s.common(mux)
}

// errShutdown refuses what comes while the director drains.
var errShutdown = wire.Errorf(wire.CodeShutdown, "the server is shutting down, and takes nothing new")

// notServedHere are end points of OpenAI's that clients may ask for, and that are not served.
var notServedHere = []string{
	"assistants", "audio", "batches", "chat", "containers", "conversations", "evals", "files", "fine_tuning", "images", "organization", "realtime", "responses", "threads", "uploads", "vector_stores", "videos",
}

// unknown answers for whatever is not served: by name, in OpenAI's shape.
func (s *Server) unknown(mux *http.ServeMux) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		path := wire.Text(r.URL.Path)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" && method != r.Method {
				w.Header().Add("Allow", method)
			}
		}
		if allow := w.Header().Values("Allow"); len(allow) > 0 {
			return &failure{
				status: http.StatusMethodNotAllowed, kind: invalidRequest, code: "method_not_allowed",
				message: fmt.Sprintf("%s cannot be asked for with %s; use %s", path, wire.Text(r.Method), strings.Join(allow, " or ")),
			}
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
		if strings.HasPrefix(r.URL.Path, "/v1/") && slices.Contains(notServedHere, name) {
			return &failure{
				status: http.StatusNotImplemented, kind: unsupported, code: "not_supported",
				message: fmt.Sprintf("%s is not served here; chat/completions, completions, responses and models are", path),
			}
		}
		return &failure{status: http.StatusNotFound, kind: invalidRequest, code: "unknown_url", message: "there is no " + path + " here"}
	}
}

// Longest values of headers that are taken from a client, in bytes.
const (
	longestID    = 128
	longestTrace = 64
)

// common answers with the headers that every answer has.
func (s *Server) common(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		id := r.Header.Get("X-Request-Id")
		if id == "" || !printable(id, longestID) {
			id = "req_" + identity.NewID() + identity.NewID()
		}
		h.Set("X-Request-Id", id)
		if trace := r.Header.Get("Traceparent"); trace != "" && printable(trace, longestTrace) {
			h.Set("Traceparent", trace)
		}
		if there := s.altSvc.Load(); there != nil && r.ProtoMajor < 3 {
			h.Set("Alt-Svc", *there)
		}
		out := http.NewResponseController(w)
		limit := func() { _ = out.SetWriteDeadline(time.Now().Add(answerTimeout)) }
		limit()
		defer limit() // of what is left to be written
		if s.allow(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// preflight is how long a browser may remember what it was allowed, in seconds.
const preflight = "600"

// allow says to a browser what scripts of the page that asks may do (CORS, Fetch §3.2). It reports false for a question that is
// answered with that.
func (s *Server) allow(w http.ResponseWriter, r *http.Request) (more bool) {
	origin := r.Header.Get("Origin")
	if origin == "" || len(s.cfg.Origins) == 0 {
		return true
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if slices.Contains(s.cfg.Origins, "*") || slices.Contains(s.cfg.Origins, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "*")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return true
	}
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
		h.Set("Access-Control-Allow-Headers", cmp.Or(r.Header.Get("Access-Control-Request-Headers"), "*"))
		h.Set("Access-Control-Max-Age", preflight)
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := failureOf(err)
	if f.status == http.StatusTooManyRequests {
		s.cfg.Events.Publish(event.LimitHit{Code: string(wire.CodeLimit), Message: f.message})
	}
	s.log.Info("request refused", zap.String("path", wire.Text(r.URL.Path)), zap.Int("status", f.status), zap.String("reason", f.message),
		telemetry.From(r.RemoteAddr))
	f.write(w)
}

// health answers whether streams are served.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	if s.draining.Load() {
		return &failure{status: http.StatusServiceUnavailable, kind: serverError, code: "unavailable", message: "the server is shutting down", after: busyAfter}
	}
	return writeJSON(w, map[string]string{"status": "ok"})
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, document any) error {
	b, err := json.Marshal(document)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	_, _ = w.Write(append(b, '\n')) // whoever is gone is not told
	return nil
}
