// Package state is what a worker does with engines' states: it captures those of its sessions for others to pull, pulls those
// that its sessions go on from, and keeps checkpoints for others.
package state

import (
	"context"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// maxCaptures bounds the copies of engines' states that are being compressed, maxHolds the checkpoints of others that
	// are being pulled: fewer than a Puller pulls at once, so that states for this worker's own streams come through.
	maxCaptures, maxHolds = 2, 2
	// pullTimeout bounds what a director that never gives up can cost.
	pullTimeout = 10 * time.Minute
	// retention is how long a snapshot is kept that nobody pulls, and a peer's checkpoint that nobody renews or
	// discards: its director is gone.
	retention = 10 * time.Minute
)

// Config bounds what a worker does with engines' states.
type Config struct {
	Label        string
	MaxState     int // bytes of one
	MaxSnapshots int // bytes of all snapshots and checkpoints, compressed
	TransferRate int // bytes per second that are sent
}

// Keeper has the snapshots of engines' states that others may pull, the checkpoints that this worker keeps for others,
// and the migration tokens that it honours. It is safe for concurrent use.
type Keeper struct {
	cfg       Config
	store     *transfer.Store
	puller    *transfer.Puller
	sender    *transfer.Server
	tokens    *token.Holder
	capturing chan struct{} // full while maxCaptures states are copied and compressed
	holding   chan struct{} // full while maxHolds checkpoints are pulled
}

// New returns an empty Keeper. Close gives back what it holds.
func New(cfg Config, nw quicnet.Network, source identity.Source, log *zap.Logger) *Keeper {
	k := &Keeper{
		cfg: cfg, store: transfer.NewStore(cfg.MaxSnapshots), tokens: token.NewHolder(),
		capturing: make(chan struct{}, maxCaptures), holding: make(chan struct{}, maxHolds),
	}
	k.puller = transfer.NewPuller(transfer.PullerConfig{
		Network: nw, TLS: source, Name: cfg.Label, MaxState: cfg.MaxState, Log: log,
	})
	k.sender = &transfer.Server{
		Store: k.store, Limiter: rate.NewLimiter(rate.Limit(cfg.TransferRate), cfg.TransferRate), Log: log,
		Show: func(secret []byte, puller string) (*wirepb.Token, error) {
			return k.tokens.Show(secret, token.Want{
				Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Source: cfg.Label, Target: puller,
			})
		},
	}
	return k
}

// Serve answers a Pull on the MGMT port.
func (k *Keeper) Serve(ctx context.Context, stream mgmt.Stream, ask *wirepb.Pull) error {
	if ask.GetFirstChunk() == 0 { // else its token has been used, and may be forgotten
		k.tokens.Await(ctx, ask.GetSecret())
	}
	return k.sender.Serve(ctx, stream, ask)
}

// Close drops all snapshots and checkpoints, and closes the connections to other nodes.
func (k *Keeper) Close() {
	k.puller.Close()
	k.store.Close()
}

// Forget gives up what is kept for a director whose process is gone.
func (k *Keeper) Forget(director string) { k.store.DropDirector(director) }

// Tokens returns the counts of this moment.
func (k *Keeper) Tokens() token.Counts { return k.tokens.Counts() }

// Bytes is how many bytes of snapshots and checkpoints there are.
func (k *Keeper) Bytes() int { return k.store.Bytes() }
