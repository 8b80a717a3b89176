package director

import (
	"math"
	"net/http"
	"time"

	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// routes is what the MGMT port serves over HTTP.
func (d *Director) routes(access mgmt.Access) http.Handler {
	mux := mgmt.NewMux(d.live, d.ready, access)
	mux.Document("/v1/workers", d.listWorkers, "limit", "cursor")
	mux.Document("/v1/connections", d.listConnections, "limit", "cursor")
	mux.Document("/v1/sessions", d.listSessions, "state", "limit", "cursor")
	mux.Document("/v1/swaps", d.listSwaps, "limit", "cursor")
	mux.Document("/v1/checkpoints", func(*http.Request) (any, error) { return d.checkpoints.status(), nil })
	mux.Document("/v1/status", func(r *http.Request) (any, error) { return d.statusDocument(mgmt.IsOperator(r)), nil })
	mux.Open("GET /openapi.json", serveOpenAPI)
	mux.Metrics(d.metrics.Handler())
	mux.Operate("GET /v1/events", d.followEvents)
	d.operators(mux)
	return mux
}

// statusDocument is what client status shows.
type statusDocument struct {
	Director    string                `json:"director"`
	Build       string                `json:"build"`
	Time        time.Time             `json:"time"`
	Workers     []fleet.Snapshot      `json:"workers"`
	Waiting     int                   `json:"waiting_streams"`
	Connections []door.Connection     `json:"connections"`
	Sessions    map[session.State]int `json:"sessions"`

	Swaps       []migration.Record            `json:"swaps"`      // under way
	Handshakes  map[string]quicnet.Handshakes `json:"handshakes"` // of the ports user and mgmt
	Log         telemetry.Counts              `json:"log"`
	ConfigFile  *yamlfile.Status              `json:"config_file,omitempty"` // of DIRECTOR_CONFIG_FILE
	KeysFile    *yamlfile.Status              `json:"keys_file,omitempty"`   // of DIRECTOR_KEYS_FILE
	Certificate *identity.Expiry              `json:"certificate,omitempty"`
	Process     telemetry.Process             `json:"process"`
	Memory      memory.Limit                  `json:"memory"`
	Shares      shares.Status                 `json:"shares"` // of what clients may have
}

// statusDocument shows each part as it is at its own moment: there is no lock over all of them. What is secret is for
// operators only.
func (d *Director) statusDocument(operator bool) statusDocument {
	workers, waiting := d.placement.Workers()
	return statusDocument{
		Director: d.cfg.ID, Build: wire.Build, Time: time.Now(),
		Workers: workers, Waiting: waiting,
		Connections: d.connections(0, math.MaxInt, operator), Sessions: d.sessions.Count(),
		Swaps:      d.sessions.Swaps(),
		Handshakes: map[string]quicnet.Handshakes{"user": d.user.Handshakes(), "mgmt": d.mgmt.Handshakes()},
		Log:        d.logCounts(),
		ConfigFile: d.settings.Status(), KeysFile: d.keysStatus(),
		Certificate: identity.ExpiryOf(d.tls),
		Process:     telemetry.ReadProcess(),
		Memory:      d.memory,
		Shares:      d.shares.Status(),
	}
}
