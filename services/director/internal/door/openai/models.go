package openai

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/shared/wire"
)

// listModels lists the models that there are, each under all names that the caller may use for it.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) error {
	all := s.models(keyOf(r), s.cfg.Settings.Now())
	slices.SortFunc(all, func(a, b model) int { return strings.Compare(a.ID, b.ID) })
	return writeJSON(w, map[string]any{"object": "list", "data": all})
}

// model is a name of a model as it is shown. Root is the name that workers have for it. Created is when the director began: workers
// come and go.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Root    string `json:"root"`
}

var started = time.Now()

// models returns all names of models that a key is good for. A name that the configuration file gives to one model stands for that
// one, even if workers have another one of that name.
func (s *Server) models(key *keys.Key, now *settings.Snapshot) []model {
	all := []model{}
	add := func(name, own string) {
		if key.MayUse(name, own) {
			all = append(all, model{ID: name, Object: "model", Created: started.Unix(), OwnedBy: "connswap", Root: own})
		}
	}
	for _, own := range s.cfg.Models() {
		if now.Own(own) == own {
			add(own, own)
		}
		for _, alias := range now.Aliases(own) {
			add(alias, own)
		}
	}
	return all
}

func (s *Server) showModel(w http.ResponseWriter, r *http.Request) error {
	name, key, now := r.PathValue("id"), keyOf(r), s.cfg.Settings.Now()
	all := s.models(key, now)
	if i := slices.IndexFunc(all, func(m model) bool { return m.ID == name }); i >= 0 {
		return writeJSON(w, all[i])
	}
	if _, err := key.Model(name, now.Own(name), s.cfg.Model); err != nil {
		return err
	}
	return wire.Errorf(wire.CodeModel, "no worker has a model %q", wire.Text(name))
}
