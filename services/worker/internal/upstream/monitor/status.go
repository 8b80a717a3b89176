package monitor

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
)

// Status is what is known of a server, for people and programs.
type Status struct {
	Where   string            `json:"where"` // its URL
	Kind    api.Kind          `json:"kind,omitempty"`
	Version string            `json:"version,omitempty"`
	State   string            `json:"state"` // ready, starting, resting, lost or unknown
	Reason  string            `json:"reason,omitempty"`
	Since   time.Time         `json:"since"` // of the state
	Breaker string            `json:"breaker"`
	Models  []Model           `json:"models"`
	Load    api.Load          `json:"load"`
	Faults  map[string]uint64 `json:"faults"` // attempts that failed, by how
	Probes  uint64            `json:"probes"` // of models, so far
}

// Ready reports whether the server has text made.
func (s Status) Ready() bool { return s.State == ready }

// Model is one that is offered.
type Model struct {
	Name        string          `json:"name"`
	At          string          `json:"at"` // its name at the server
	Fingerprint string          `json:"fingerprint"`
	Context     int             `json:"context,omitempty"` // tokens of prompt and answer
	Abilities   probe.Abilities `json:"abilities"`
}

// Status returns what is known.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Models = slices.Clone(s.Models)
	s.Breaker = m.breaker.state(time.Now())
	s.Faults = maps.Clone(m.faults)
	return s
}

// Line is the server in a line, for people.
func (m *Monitor) Line() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	words := []string{string(m.status.Kind), m.status.Version, "at", m.status.Where}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// Class returns what was measured of a model, in a word; empty for one that is not offered.
func (m *Monitor) Class(e engine.Engine) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.status.Models {
		if one.Name == e.Name() {
			return string(one.Abilities.Class)
		}
	}
	return ""
}

// Others returns how many requests the server has beside those of this worker.
func (m *Monitor) Others() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status.State != ready {
		return 0
	}
	return m.others
}
