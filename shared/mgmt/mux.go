package mgmt

import (
	"io"
	"net/http"
)

// Mux answers HTTP requests: for health, and with the documents of the role.
type Mux struct {
	mux     *http.ServeMux
	answers *answers
}

// NewMux returns a mux with /livez and /readyz. Each answers 200 "ok", or 503 and the error's text.
func NewMux(live, ready func() error) *Mux {
	m := &Mux{mux: http.NewServeMux(), answers: newAnswers()}
	m.mux.Handle("GET /livez", probe(live))
	m.mux.Handle("GET /readyz", probe(ready))
	return m
}

func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n") //nolint:errcheck // the asker is gone; there is nobody to tell
	}
}

// Document answers GET requests for path with what build returns, as indented JSON. An error of build is the answer too,
// see Refuse.
func (m *Mux) Document(path string, build func(r *http.Request) (any, error)) {
	m.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { m.answers.serve(w, r, build) })
}
