package fleet

import (
	"cmp"
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/wire"
)

// Snapshot is a worker as it is shown to people and programs.
type Snapshot struct {
	Worker      string    `json:"worker"`
	Instance    string    `json:"instance"`
	UserAddr    string    `json:"user_addr"`
	MgmtAddr    string    `json:"mgmt_addr"`
	Models      []Model   `json:"models"`
	Server      string    `json:"server,omitempty"`      // inference server that it stands beside, for people
	Connected   bool      `json:"connected"`             // its link is up
	Unreachable string    `json:"unreachable,omitempty"` // why the link is not up
	Available   bool      `json:"available"`             // it takes new sessions
	Reason      string    `json:"reason,omitempty"`      // why it takes none, as it says itself
	Draining    bool      `json:"draining"`              // its sessions move away, and it gets no new ones
	Sessions    int       `json:"sessions"`              // by this director's count; the placement's part
	Reported    int       `json:"reported"`              // by its own, at the last heartbeat: those of other directors count
	Capacity    int       `json:"capacity"`
	Fenced      uint64    `json:"fenced"` // tokens that came for sessions which had left, since the link is up
	Heartbeat   time.Time `json:"last_heartbeat"`
	Version     uint32    `json:"version"` // of the protocol that it is spoken with
	Build       string    `json:"build"`
	Incoming    int       `json:"incoming"` // swaps under way to it; the placement's part
	Cooldown    bool      `json:"cooldown"` // gets nothing while others have room, since its attempts fail; the placement's part
}

// Model is a model of a worker as it is shown to people and programs.
type Model struct {
	Name        string   `json:"name"`
	Fingerprint string   `json:"fingerprint"`        // equal ones continue each other's streams
	Capacity    int      `json:"capacity,omitempty"` // streams at once; absent for as many as the worker has
	Stateful    bool     `json:"stateful"`           // a state moves with its streams
	Continuity  string   `json:"continuity"`         // the best class that it promises: none, text, verified or exact
	Class       string   `json:"class,omitempty"`    // what its worker has measured of it: exact, replayable, ids or text; absent where nothing has to be measured
	APIs        []string `json:"apis,omitempty"`     // that it answers beside those that generate text
}

func modelsOf(models []routing.Model) []Model {
	all := make([]Model, len(models))
	for i, m := range models {
		all[i] = Model{m.Name, m.Fingerprint, m.Capacity, m.Stateful, wire.Continuity(m.Continuity), m.Class, m.APIs}
	}
	return all
}

// Fingerprints returns those of the worker's models, in order.
func (s Snapshot) Fingerprints() []string {
	all := make([]string, len(s.Models))
	for i, m := range s.Models {
		all[i] = m.Fingerprint
	}
	slices.Sort(all)
	return all
}

// Workers returns the registered workers by label. What the placement knows of them is left out.
func (f *Fleet) Workers() []Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	workers := make([]Snapshot, 0, len(f.workers))
	for _, w := range f.workers {
		s := Snapshot{
			Worker: w.Label, Instance: w.Instance, UserAddr: w.UserAddr, MgmtAddr: w.MgmtAddr,
			Models: modelsOf(w.Models), Server: w.Server, Reported: w.reported, Capacity: w.Capacity, Heartbeat: w.heartbeat,
			Draining: f.hasDrainMark(w.Label), Version: w.Version, Build: w.Build, Unreachable: w.unreachable,
		}
		if w.link != nil {
			s.Connected, s.Available, s.Fenced = true, w.link.Available() && !f.hasDrainMark(w.Label), w.link.Fenced()
			s.Reason = w.link.Reason()
		}
		workers = append(workers, s)
	}
	slices.SortFunc(workers, func(a, b Snapshot) int { return cmp.Compare(a.Worker, b.Worker) })
	return workers
}
