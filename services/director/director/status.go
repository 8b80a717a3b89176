package director

import (
	"errors"
	"net/http"

	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/services/director/internal/server"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration"
)

// routes is the HTTP face of the MGMT port. It only shows; it changes nothing.
func (d *Director) routes() http.Handler {
	mux := mgmt.Mux(func() error { return nil }, d.ready)
	mux.HandleFunc("GET /v1/workers", func(w http.ResponseWriter, _ *http.Request) {
		workers, waiting := d.pool.Workers()
		mgmt.WriteJSON(w, struct {
			Workers []pool.Snapshot `json:"workers"`
			Waiting int             `json:"waiting_streams"`
		}{workers, waiting})
	})
	mux.HandleFunc("GET /v1/connections", func(w http.ResponseWriter, _ *http.Request) {
		mgmt.WriteJSON(w, struct {
			Connections []server.Snapshot `json:"connections"`
		}{d.server.Connections()})
	})
	mux.HandleFunc("GET /v1/swaps", func(w http.ResponseWriter, _ *http.Request) {
		swaps, total := d.swaps.list()
		mgmt.WriteJSON(w, struct {
			Total int                `json:"total"` // since the director started; the newest are listed
			Swaps []migration.Record `json:"swaps"`
		}{total, swaps})
	})
	return mux
}

// ready says whether clients are served. A director without workers is ready too: its streams wait.
func (d *Director) ready() error {
	if !d.serving.Load() {
		return errors.New("not serving clients: starting, or shutting down")
	}
	return nil
}
