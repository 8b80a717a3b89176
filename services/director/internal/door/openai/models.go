package openai

import (
	"net/http"
	"slices"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// listModels lists the models that there are, and that the caller may use.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) error {
	all := []any{}
	for _, name := range s.cfg.Models() {
		if keyOf(r).MayUse(name) {
			all = append(all, s.model(name))
		}
	}
	return writeJSON(w, map[string]any{"object": "list", "data": all})
}

// model is a model as it is shown. created is when the director began: workers come and go.
func (s *Server) model(name string) map[string]any {
	return map[string]any{"id": name, "object": "model", "created": started.Unix(), "owned_by": "connswap"}
}

var started = time.Now()

func (s *Server) showModel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("id")
	if !slices.Contains(s.cfg.Models(), name) || !keyOf(r).MayUse(name) {
		if _, err := keyOf(r).Model(name, s.cfg.Model); err != nil {
			return err
		}
		return wire.Errorf(wire.CodeModel, "no worker has a model %q", wire.Text(name))
	}
	return writeJSON(w, s.model(name))
}
