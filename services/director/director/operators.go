package director

import (
	"context"
	"time"

	"github.com/connswap/connswap/services/director/internal/maintenance"
	"github.com/connswap/connswap/services/director/internal/operations"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
)

// What operators may do, over HTTP. The bodies of their requests and of the answers are JSON objects.
type (
	swapRequest struct {
		ConnectionID string `json:"connection_id"`
		StreamID     uint64 `json:"stream_id"` // 0: the only one of the connection
		ToWorker     string `json:"to_worker"` // empty: any other one
	}
	drainRequest struct {
		Worker    string `json:"worker"`
		TimeoutMS uint64 `json:"timeout_ms"` // 0: for as long as somebody follows
		Force     bool   `json:"force"`      // even if no other worker is there to take the sessions
	}
	undrainRequest struct {
		Worker string `json:"worker"`
	}
	rebalanceRequest struct{}
	confirmRequest   struct {
		ConnectionID string `json:"connection_id"`
		StreamID     uint64 `json:"stream_id"`
	}
	vetoRequest struct {
		ConnectionID string `json:"connection_id"`
		StreamID     uint64 `json:"stream_id"`
		Reason       string `json:"reason"` // for the log and for whoever asked for the swap
	}

	// movesDocument is the progress and the result of a drain or a rebalancing.
	movesDocument struct {
		Remaining int      `json:"remaining"` // sessions on the worker that is drained; for a rebalancing, still to be moved
		Moved     int      `json:"moved"`
		Failed    int      `json:"failed"` // swaps that were given up; the sessions are tried again
		InTheWay  []string `json:"in_the_way,omitempty"`
	}
	// messageDocument is the result of what is done at once.
	messageDocument struct {
		Message string `json:"message"`
	}
)

// operators adds to the mux what operators may do.
func (d *Director) operators(mux *mgmt.Mux) {
	t := d.operations
	mux.Operate("POST /v1/swap", operations.Post(t, "swap", d.swap))
	mux.Operate("POST /v1/drain", operations.Post(t, "drain", d.drain))
	mux.Operate("POST /v1/undrain", operations.Post(t, "undrain", d.undrain))
	mux.Operate("POST /v1/rebalance", operations.Post(t, "rebalance", d.rebalance))
	mux.Operate("POST /v1/confirm", operations.Post(t, "confirm", d.confirm))
	mux.Operate("POST /v1/veto", operations.Post(t, "veto", d.veto))
	mux.Operate("GET /v1/operations/{id}", t.Get)
	mux.Operate("DELETE /v1/operations/{id}", t.Delete)
}

// maxTimeout keeps an operator's timeout within what a time.Duration can say, in milliseconds.
const maxTimeout = uint64(365 * 24 * time.Hour / time.Millisecond)

func (d *Director) swap(ctx context.Context, r swapRequest, _ func(any)) (any, error) {
	if err := needed("connection_id", r.ConnectionID); err != nil {
		return nil, err
	}
	return d.maintenance.Swap(ctx, r.ConnectionID, r.StreamID, r.ToWorker)
}

func (d *Director) drain(ctx context.Context, r drainRequest, progress func(any)) (any, error) {
	if err := needed("worker", r.Worker); err != nil {
		return nil, err
	}
	timeout := time.Duration(min(r.TimeoutMS, maxTimeout)) * time.Millisecond
	moves, err := d.maintenance.Drain(ctx, r.Worker, timeout, r.Force, moving(progress))
	return movesOf(moves), err
}

func (d *Director) undrain(_ context.Context, r undrainRequest, _ func(any)) (any, error) {
	if err := needed("worker", r.Worker); err != nil {
		return nil, err
	}
	return messageDocument{r.Worker + " is back in use"}, d.maintenance.Undrain(r.Worker)
}

func (d *Director) rebalance(ctx context.Context, _ rebalanceRequest, progress func(any)) (any, error) {
	moves, err := d.maintenance.Rebalance(ctx, moving(progress))
	return movesOf(moves), err
}

func (d *Director) confirm(_ context.Context, r confirmRequest, _ func(any)) (any, error) {
	if err := needed("connection_id", r.ConnectionID); err != nil {
		return nil, err
	}
	return messageDocument{"confirmed"}, d.maintenance.Decide(r.ConnectionID, r.StreamID, true, "")
}

func (d *Director) veto(_ context.Context, r vetoRequest, _ func(any)) (any, error) {
	if err := needed("connection_id", r.ConnectionID); err != nil {
		return nil, err
	}
	return messageDocument{"vetoed"}, d.maintenance.Decide(r.ConnectionID, r.StreamID, false, r.Reason)
}

// needed refuses a request without a field that it cannot do without.
func needed(field, value string) error {
	if value == "" {
		return wire.Errorf(wire.CodeInvalid, "%s is missing", field)
	}
	return nil
}

// moving passes on how far a drain or a rebalancing is.
func moving(progress func(any)) func(maintenance.Moves) {
	return func(m maintenance.Moves) { progress(movesOf(m)) }
}

func movesOf(m maintenance.Moves) movesDocument {
	all := movesDocument{Remaining: m.Remaining, Moved: m.Moved, Failed: m.Failed}
	for _, text := range m.Blockers {
		all.InTheWay = append(all.InTheWay, wire.Text(text))
	}
	return all
}
