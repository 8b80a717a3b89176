package mgmt

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/connswap/connswap/shared/wire"
)

// Mux answers HTTP requests: for health, with the documents of the role, and with what operators may do. What is refused
// gets a Problem.
type Mux struct {
	access   Access
	mux      *http.ServeMux
	patterns []string
	answers  *answers
}

// NewMux returns a mux with /livez and /readyz, and /healthz, which is /readyz. Each answers 200 "ok", with a note if there
// is one, or 503 and the error's text.
func NewMux(live func() error, ready func() (note string, err error), access Access) *Mux {
	m := &Mux{access: access, mux: http.NewServeMux(), answers: newAnswers()}
	m.Open("GET /livez", probe(func() (string, error) { return "", live() }))
	m.Open("GET /readyz", probe(ready))
	m.Open("GET /healthz", probe(ready))
	return m
}

// Patterns returns what is answered, each a method and a path.
func (m *Mux) Patterns() []string { return slices.Clone(m.patterns) }

// handle answers requests for a pattern.
func (m *Mux) handle(pattern string, handler http.HandlerFunc) {
	m.patterns = append(m.patterns, pattern)
	m.mux.HandleFunc(pattern, handler)
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := m.mux.Handler(r)
	if pattern != "" {
		m.mux.ServeHTTP(w, r)
		return
	}
	verdict := &verdict{header: http.Header{}}
	handler.ServeHTTP(verdict, r)
	switch allow := verdict.header.Get("Allow"); {
	case allow != "":
		w.Header().Set("Allow", allow)
		refuse(w, http.StatusMethodNotAllowed, wire.Errorf(wire.CodeInvalid, "%s cannot be asked for with %s; use %s",
			wire.Text(r.URL.Path), wire.Text(r.Method), allow))
	default:
		refuse(w, http.StatusNotFound, wire.Errorf(wire.CodeNotFound, "there is no %s here", wire.Text(r.URL.Path)))
	}
}

// verdict takes what http.ServeMux says of a request for which it has no handler.
type verdict struct{ header http.Header }

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) Write(p []byte) (int, error) { return len(p), nil }
func (v *verdict) WriteHeader(int)             {}

func probe(check func() (note string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		note, err := check()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if note != "" {
			note = "; " + note
		}
		io.WriteString(w, "ok"+note+"\n") //nolint:errcheck // the asker is gone; there is nobody to tell
	}
}

// Document answers GET requests for path with what build returns, as indented JSON, if whoever asks may read it. An error
// of build is the answer too, see Refuse; so is a parameter in the query that is not one of those given.
func (m *Mux) Document(path string, build func(r *http.Request) (any, error), parameters ...string) {
	checked := func(r *http.Request) (any, error) {
		if err := checkQuery(r, parameters); err != nil {
			return nil, err
		}
		return build(r)
	}
	m.handle("GET "+path, m.access.readers(func(w http.ResponseWriter, r *http.Request) { m.answers.serve(w, r, checked) }))
}

// Query returns the parameters of a request's query, or refuses those that are not known.
func Query(r *http.Request, known ...string) (url.Values, error) {
	if err := checkQuery(r, known); err != nil {
		return nil, err
	}
	return r.URL.Query(), nil
}

// checkQuery refuses parameters that are not known: whoever misspells one would get the wrong answer.
func checkQuery(r *http.Request, known []string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return wire.Errorf(wire.CodeInvalid, "the query cannot be read: %s", wire.Text(err.Error()))
	}
	for name := range query {
		switch {
		case slices.Contains(known, name):
		case len(known) == 0:
			return wire.Errorf(wire.CodeInvalid, "%.80q is not known here; %s has no parameters", name, r.URL.Path)
		default:
			return wire.Errorf(wire.CodeInvalid, "%.80q is not known here; %s has %s", name, r.URL.Path, strings.Join(known, ", "))
		}
	}
	return nil
}

// Metrics answers GET /metrics, to who may read documents.
func (m *Mux) Metrics(handler http.HandlerFunc) { m.handle("GET /metrics", m.access.readers(handler)) }

// Operate answers requests of operators. The pattern has a method and a path.
func (m *Mux) Operate(pattern string, handler http.HandlerFunc) {
	m.handle(pattern, m.access.operators(handler))
}

// Open answers requests of everybody. The pattern has a method and a path; the handler costs next to nothing.
func (m *Mux) Open(pattern string, handler http.HandlerFunc) { m.handle(pattern, handler) }
