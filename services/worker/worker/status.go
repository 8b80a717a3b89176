package worker

import (
	"net/http"
	"time"

	"github.com/connswap/connswap/services/worker/internal/link"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/upstream/monitor"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Status is what GET /v1/status on the MGMT port answers.
type Status struct {
	Worker      string           `json:"worker"`
	Instance    string           `json:"instance"`
	Started     time.Time        `json:"started"`
	Models      []Model          `json:"models"`
	Server      *monitor.Status  `json:"server,omitempty"` // that it stands beside, with the engine upstream
	Available   bool             `json:"available"`
	Reason      string           `json:"reason,omitempty"`      // why it is not available
	Directors   int              `json:"directors"`             // at which it is registered
	Unreachable string           `json:"unreachable,omitempty"` // why they cannot reach its USER port
	DrainedBy   string           `json:"drained_by,omitempty"`  // director whose operator has taken it out of use
	Capacity    int              `json:"capacity"`
	Sessions    []session.Status `json:"sessions"`
	link.Counters
	MigrationTokens token.Counts `json:"migration_tokens"`
	SnapshotBytes   int          `json:"snapshot_bytes"` // of states that are offered or kept, compressed
	Build           string       `json:"build"`
	Version         uint32       `json:"version"` // highest that it speaks with directors

	Handshakes  map[string]quicnet.Handshakes `json:"handshakes"` // of the ports user and mgmt
	Log         telemetry.Counts              `json:"log"`
	Certificate *identity.Expiry              `json:"certificate,omitempty"`
	Process     telemetry.Process             `json:"process"`
	Memory      memory.Limit                  `json:"memory"`
	Bytes       bytesHeld                     `json:"bytes"`
}

// Model is one of the worker's models.
type Model struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Capacity    int    `json:"capacity,omitempty"` // streams at once; absent for as many as the worker has
}

func (w *Worker) modelStatus() []Model {
	models := w.sessions.Models()
	all := make([]Model, len(models))
	for i, m := range models {
		all[i] = Model{m.Name(), m.Fingerprint(), m.Capacity}
	}
	return all
}

// bytesHeld is how much memory the prompts and tokens that directors have sent take, and may take.
type bytesHeld struct {
	Limit int64 `json:"limit"`
	Used  int64 `json:"used"`
}

func (w *Worker) routes() http.Handler {
	mux := mgmt.NewMux(w.live, w.ready, mgmt.Access{PlainStatus: w.cfg.PlainStatus, Log: w.deps.Log})
	mux.Document("/v1/status", func(*http.Request) (any, error) { return w.status(), nil })
	mux.Metrics(w.metrics())
	return mux
}

func (w *Worker) status() Status {
	load := w.sessions.Load()
	var server *monitor.Status
	if w.beside != nil {
		s := w.beside.monitor.Status()
		server = &s
	}
	return Status{
		Worker: w.cfg.Label, Instance: w.instance, Started: w.started,
		Models: w.modelStatus(), Server: server, Available: load.Available, Reason: load.Reason, Directors: w.registrar.Registered(),
		Unreachable: w.registrar.Unreachable(), DrainedBy: w.links.DrainedBy(),
		Capacity: w.cfg.Capacity, Sessions: append([]session.Status{}, w.sessions.Sessions()...),
		Counters: w.links.Counters(), MigrationTokens: w.states.Tokens(), SnapshotBytes: w.states.Bytes(),
		Build: wire.Build, Version: w.versions.Newest, Log: w.deps.LogCounts(),
		Certificate: identity.ExpiryOf(w.deps.TLS), Process: telemetry.ReadProcess(), Memory: w.deps.Memory, Bytes: bytesHeld{w.deps.Memory.Budget(w.cfg.MaxBytes), load.Bytes},
		Handshakes: map[string]quicnet.Handshakes{"user": w.ports.user.Handshakes(), "mgmt": w.ports.mgmt.Handshakes()},
	}
}
