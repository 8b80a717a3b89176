package director

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/door/native"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// routes is what the MGMT port serves over HTTP. It only shows; it changes nothing, and asks for no certificate.
func (d *Director) routes() http.Handler {
	mux := mgmt.Mux(d.live, d.ready)
	mux.HandleFunc("GET /v1/workers", func(w http.ResponseWriter, _ *http.Request) {
		workers, waiting := d.placement.Workers()
		mgmt.WriteJSON(w, workersDocument{workers, waiting})
	})
	mux.HandleFunc("GET /v1/connections", func(w http.ResponseWriter, _ *http.Request) {
		mgmt.WriteJSON(w, connectionsDocument{d.native.Connections(), d.sessions.Count()})
	})
	mux.HandleFunc("GET /v1/sessions", func(w http.ResponseWriter, r *http.Request) {
		var states []session.State
		for _, state := range r.URL.Query()["state"] {
			if !slices.Contains(session.States, session.State(state)) {
				http.Error(w, fmt.Sprintf("unknown state %.80q; give one of %v", state, session.States), http.StatusBadRequest)
				return
			}
			states = append(states, session.State(state))
		}
		mgmt.WriteJSON(w, struct {
			Sessions []session.Listed `json:"sessions"`
		}{d.sessions.List(states...)})
	})
	mux.HandleFunc("GET /v1/swaps", func(w http.ResponseWriter, _ *http.Request) {
		swaps, total := d.swaps.list()
		mgmt.WriteJSON(w, struct {
			Total int                `json:"total"` // since the director started; the newest are listed
			Swaps []migration.Record `json:"swaps"`
		}{total, swaps})
	})
	mux.HandleFunc("GET /v1/checkpoints", func(w http.ResponseWriter, _ *http.Request) { mgmt.WriteJSON(w, d.checkpoints.status()) })
	return mux
}

// workersDocument is what /v1/workers shows.
type workersDocument struct {
	Workers []fleet.Snapshot `json:"workers"`
	Waiting int              `json:"waiting_streams"`
}

// connectionsDocument is what /v1/connections shows.
type connectionsDocument struct {
	Connections []native.Snapshot     `json:"connections"`
	Sessions    map[session.State]int `json:"sessions"` // how many in each state, of all connections
}

// statusDocument is what client status shows.
type statusDocument struct {
	Director string    `json:"director"`
	Build    string    `json:"build"`
	Time     time.Time `json:"time"`
	workersDocument
	connectionsDocument
	Swaps      []migration.Record            `json:"swaps"`      // under way
	Handshakes map[string]quicnet.Handshakes `json:"handshakes"` // of the ports user and mgmt
	Log        telemetry.Counts              `json:"log"`
	Memory     memory.Limit                  `json:"memory"`
	Shares     shares.Status                 `json:"shares"` // of what clients may have
}

// statusDocument shows each part as it is at its own moment: there is no lock over all of them.
func (d *Director) statusDocument() statusDocument {
	workers, waiting := d.placement.Workers()
	return statusDocument{
		Director: d.cfg.ID, Build: wire.Build, Time: time.Now(),
		workersDocument: workersDocument{workers, waiting}, connectionsDocument: connectionsDocument{d.native.Connections(), d.sessions.Count()},
		Swaps:      d.sessions.Swaps(),
		Handshakes: map[string]quicnet.Handshakes{"user": d.user.Handshakes(), "mgmt": d.mgmt.Handshakes()},
		Log:        d.logCounts(),
		Memory:     d.memory,
		Shares:     d.shares.Status(),
	}
}
