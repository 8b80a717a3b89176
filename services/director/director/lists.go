package director

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// The lists, a page at a time; next is the cursor for the page that follows, if any does.
type (
	// workersDocument is what /v1/workers shows, by label.
	workersDocument struct {
		Workers []fleet.Snapshot `json:"workers"`
		Waiting int              `json:"waiting_streams"`
		Next    string           `json:"next,omitempty"`
	}
	// connectionsDocument is what /v1/connections shows, by age.
	connectionsDocument struct {
		Connections []door.Connection     `json:"connections"`
		Sessions    map[session.State]int `json:"sessions"` // how many in each state, of all connections
		Next        string                `json:"next,omitempty"`
	}
	// sessionsDocument is what /v1/sessions shows, by age.
	sessionsDocument struct {
		Sessions []session.Listed `json:"sessions"`
		Next     string           `json:"next,omitempty"`
	}
	// swapsDocument is what /v1/swaps shows, in the order in which they ended.
	swapsDocument struct {
		Total int                `json:"total"` // since the director started; the newest are listed
		Swaps []migration.Record `json:"swaps"`
		Next  string             `json:"next,omitempty"`
	}
)

func (d *Director) listWorkers(r *http.Request) (any, error) {
	page, err := mgmt.PageOf(r, "workers", d.instance)
	if err != nil {
		return nil, err
	}
	all, waiting := d.placement.Workers()
	workers := slices.DeleteFunc(all, func(w fleet.Snapshot) bool { return w.Worker <= page.After() })
	workers, next := mgmt.Cut(page, workers, func(w fleet.Snapshot) string { return w.Worker })
	return workersDocument{workers, waiting, next}, nil
}

func (d *Director) listConnections(r *http.Request) (any, error) {
	page, after, err := d.numbered(r, "connections")
	if err != nil {
		return nil, err
	}
	connections := d.connections(after, page.Limit+1, mgmt.IsOperator(r))
	connections, next := mgmt.Cut(page, connections, func(c door.Connection) string { return mgmt.NumberKey(c.Number) })
	return connectionsDocument{connections, d.sessions.Count(), next}, nil
}

// connections returns a part of the connections. Exporters are for operators only.
func (d *Director) connections(after uint64, limit int, operator bool) []door.Connection {
	connections := append(d.native.Connections(after, limit), d.openai.Connections(after, limit)...)
	slices.SortFunc(connections, func(a, b door.Connection) int { return cmp.Compare(a.Number, b.Number) })
	connections = connections[:min(limit, len(connections))]
	if !operator {
		for i := range connections {
			connections[i].Exporter = ""
		}
	}
	return connections
}

func (d *Director) listSessions(r *http.Request) (any, error) {
	page, after, err := d.numbered(r, "sessions")
	if err != nil {
		return nil, err
	}
	var states []session.State
	for _, state := range r.URL.Query()["state"] {
		if !slices.Contains(session.States, session.State(state)) {
			return nil, wire.Errorf(wire.CodeInvalid, "unknown state %.80q; give one of %v", state, session.States)
		}
		states = append(states, session.State(state))
	}
	sessions := d.sessions.Page(after, page.Limit+1, states...)
	sessions, next := mgmt.Cut(page, sessions, func(s session.Listed) string { return mgmt.NumberKey(s.ID) })
	return sessionsDocument{sessions, next}, nil
}

func (d *Director) listSwaps(r *http.Request) (any, error) {
	page, after, err := d.numbered(r, "swaps")
	if err != nil {
		return nil, err
	}
	swaps, first, total := d.swaps.list(after, page.Limit+1)
	last := first + uint64(page.Limit) - 1
	swaps, next := mgmt.Cut(page, swaps, func(migration.Record) string { return mgmt.NumberKey(last) })
	return swapsDocument{total, swaps, next}, nil
}

// numbered reads the page that is asked for of a list whose entries have numbers, and the number that it follows.
func (d *Director) numbered(r *http.Request, kind string) (page mgmt.Page, after uint64, err error) {
	if page, err = mgmt.PageOf(r, kind, d.instance); err == nil {
		after, err = page.AfterNumber()
	}
	return page, after, err
}
