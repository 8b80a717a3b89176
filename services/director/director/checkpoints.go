package director

import (
	"context"
	"net"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// checkpoints stores the states of stateful engines in this director, within a bound, for streams whose worker dies: it
// pulls them from the workers that serve, and gives them to the workers that take over, against migration tokens. When
// they are taken and used is decided in package checkpoint, for each stream by itself. It is safe for concurrent use;
// each pull has a goroutine, for which Close waits.
type checkpoints struct {
	id       string // of the director
	instance string
	mgmtPort string
	timeout  func() (context.Context, context.CancelFunc)
	store    *transfer.Store
	puller   *transfer.Puller
	server   *transfer.Server
	tokens   *token.Holder
	grants   *token.Grants // what this director allows
	limiter  *checkpoint.Limiter

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	stop    context.CancelFunc
}

var _ checkpoint.Store = (*checkpoints)(nil)

// newCheckpoints returns an empty store for this director's instance. Close it.
func newCheckpoints(cfg config.Director, instance string, nw quicnet.Network, source identity.Source, events *event.Bus, log *zap.Logger) *checkpoints {
	ctx, stop := context.WithCancel(context.Background())
	c := &checkpoints{
		id: cfg.ID, instance: instance, stop: stop,
		tokens: token.NewHolder(), store: transfer.NewStore(cfg.MaxCheckpointBytes), limiter: checkpoint.NewLimiter(),
	}
	c.grants = c.tokens.Join(instance)
	_, c.mgmtPort, _ = net.SplitHostPort(cfg.MgmtAddr) // was checked with the configuration
	c.timeout = func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, cfg.TransferTimeout) }
	c.puller = transfer.NewPuller(transfer.PullerConfig{
		Network: nw, TLS: source, Name: cfg.ID, MaxState: cfg.MaxStateBytes, Log: log,
	})
	c.server = &transfer.Server{
		Store: c.store, Limiter: rate.NewLimiter(rate.Limit(cfg.TransferRate), cfg.TransferRate), Log: log,
		Show: func(secret []byte, puller string) (*wirepb.Token, error) {
			t, err := c.tokens.Show(secret, token.Want{
				Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Director: instance, Source: cfg.ID, Target: puller,
			})
			if err != nil {
				events.Publish(event.TokenRefused{Worker: puller, Code: string(wire.AsError(err, wire.CodeInternal).Code)})
			}
			return t, err
		},
	}
	return c
}

// Fetch pulls a session's state from its worker, in the background, until that is cancelled.
func (c *checkpoints) Fetch(from *wirepb.Fetch, done func(sequence uint64, err error)) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := c.timeout()
	if c.closed { // whoever waits is being ended too
		cancel()
		return cancel
	}
	c.running.Go(func() {
		defer cancel()
		done(c.fetch(ctx, from))
	})
	return cancel
}

// fetch pulls a state and stores it. It returns the token after which the state was taken.
func (c *checkpoints) fetch(ctx context.Context, from *wirepb.Fetch) (uint64, error) {
	snapshot, err := c.puller.Pull(ctx, identity.Worker, from)
	if err != nil {
		return 0, err
	}
	return snapshot.Sequence(), c.store.Put(c.key(from.GetSession()), snapshot, 0)
}

// key is under which name a stream's checkpoint is stored.
func (c *checkpoints) key(id uint64) transfer.Key {
	return transfer.Key{Director: c.instance, Session: id, Checkpoint: true}
}

// Addr is the address from which the director talks to the worker, with the MGMT port.
func (c *checkpoints) Addr(l *link.Link) (addr, keeper string) {
	host, _, err := net.SplitHostPort(l.LocalAddr())
	if err != nil {
		host = ""
	}
	return net.JoinHostPort(host, c.mgmtPort), c.id
}

// Allow lets whoever shows the token's secret get the state of its session.
func (c *checkpoints) Allow(t *wirepb.Token) error { return c.grants.Allow(t) }

// Drop forgets a session's state.
func (c *checkpoints) Drop(id uint64) { c.store.Drop(c.key(id)) }

// checkpointsDocument is what is kept here, what became of the migration tokens that were shown for it, and how
// checkpoints go on, wherever they are kept.
type checkpointsDocument struct {
	Bytes  int          `json:"bytes"` // compressed
	Tokens token.Counts `json:"migration_tokens"`
	checkpoint.Counts
}

// status returns the counts of this moment.
func (c *checkpoints) status() checkpointsDocument {
	return checkpointsDocument{Bytes: c.store.Bytes(), Tokens: c.tokens.Counts(), Counts: c.limiter.Counts()}
}

// Close ends what is under way and gives everything back.
func (c *checkpoints) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
	c.puller.Close()
	c.store.Close()
}
