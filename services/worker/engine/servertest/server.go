package servertest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Request is one that has arrived.
type Request struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte    // as it came
	When   time.Time // it had been read

	Continues bool // it wants something continued: ids as the prompt, or a last message of an assistant
}

// Server is a scripted inference server. All its methods are safe for concurrent use.
type Server struct {
	kind    Kind
	dialect dialect
	random  *random
	load    *load
	script  faultScript
	gate    gate
	process process
	mux     *http.ServeMux

	mu       sync.Mutex
	options  Options // version, fingerprint, weights and loading change
	requests []Request
}

// New returns a server that runs nowhere yet.
func New(kind Kind, options Options) *Server {
	s := &Server{kind: kind, dialect: dialectOf(kind), random: newRandom(options.Random), load: newLoad(options.Capacity), mux: http.NewServeMux()}
	s.dialect.defaults(&options)
	s.options = withDefaults(kind, options)
	s.mux.HandleFunc("POST /v1/chat/completions", s.text(chatForm))
	s.mux.HandleFunc("POST /v1/completions", s.text(completionForm))
	s.mux.HandleFunc("POST /v1/embeddings", s.embeddings)
	s.mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, s.dialect.models(s.about()))
	})
	s.dialect.routes(s, s.mux)
	return s
}

type bodyKey struct{}

// rawBody is the body of a request that ServeHTTP has read.
func rawBody(r *http.Request) []byte {
	raw, _ := r.Context().Value(bodyKey{}).([]byte)
	return raw
}

// largestBody bounds what is read of a request, in bytes.
const largestBody = 64 << 20

// ServeHTTP answers as the server of its kind.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestBody))
	if err != nil {
		s.refuse(w, badRequest(err.Error()))
		return
	}
	s.record(r, raw)
	if s.pass(r.Context()) != nil {
		return
	}
	if !s.admits(w, r) {
		return
	}
	ctx := context.WithValue(r.Context(), bodyKey{}, raw)
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

func (s *Server) record(r *http.Request, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{
		Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: bytes.Clone(raw), When: time.Now(), Continues: continues(raw),
	})
}

// admits refuses requests without the key, and all but a few while the model is loading.
func (s *Server) admits(w http.ResponseWriter, r *http.Request) bool {
	o := s.about()
	open := s.dialect.open(r.URL.Path)
	if o.APIKey != "" && !open && r.Header.Get("Authorization") != "Bearer "+o.APIKey {
		s.refuse(w, unauthorized())
		return false
	}
	if !o.Loading || s.dialect.servesLoading(r.URL.Path) {
		return true
	}
	s.refuse(w, unavailable("Loading model"))
	return false
}

// about is what the server is at the moment.
func (s *Server) about() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options
}

func (s *Server) weights() string { return s.about().Weights }

// SetLoading says whether the server is loading its model, and answers 503 to nearly everything.
func (s *Server) SetLoading(loading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Loading = loading
}

// Upgrade changes version and fingerprint, as an installation of something newer does; weights are what the texts come from. An empty one
// stays.
func (s *Server) Upgrade(version, fingerprint, weights string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.options
	for _, change := range []struct {
		to   *string
		from string
	}{{&o.Version, version}, {&o.Fingerprint, fingerprint}, {&o.Weights, weights}} {
		if change.from != "" {
			*change.to = change.from
		}
	}
}

// Fail adds faults.
func (s *Server) Fail(faults ...Fault) { s.script.add(faults) }

// Heal takes all faults away. Requests that suffer already go on to do so.
func (s *Server) Heal() { s.script.clear() }

// Requests returns what has arrived, in the order of arrival, of any path.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Running is how many requests the server generates for, or has waiting. It falls at once when a client disconnects.
func (s *Server) Running() int {
	running, waiting := s.load.now()
	return running + waiting
}

// Tokens is how many tokens were generated since New.
func (s *Server) Tokens() int {
	tokens, _ := s.load.counts()
	return tokens
}

// Events is how many events the last stream that ended had put out, [DONE] included.
func (s *Server) Events() int {
	_, events := s.load.counts()
	return events
}
