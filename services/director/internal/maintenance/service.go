// Package maintenance moves sessions on purpose: one at an operator's wish, all of a worker that is drained, some to
// even out the load. How one session moves is the session's own affair (see package session); this package decides
// which ones, where to and how many at once.
package maintenance

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Config bounds what is done at once.
type Config struct {
	AtOnce         int  // planned swaps that one drain or rebalancing has under way
	Transfers      int  // the same where an engine's state moves too
	SwapsPerSecond int  // swaps that a rebalancing begins per second
	Confirm        bool // an operator has to confirm each planned swap
}

// Service is safe for concurrent use. What an operator asks for runs on the operator's goroutine, as long as the
// operator's context; what a worker asks for (Leaving) runs on one of the Service's own, for which Close waits. It
// holds no lock while it calls sessions, placement or fleet.
type Service struct {
	cfg       Config
	sessions  *session.Manager
	placement *placement.Placement
	fleet     *fleet.Fleet
	log       *zap.Logger

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // drains that workers asked for

	mu      sync.Mutex
	leaving map[string]bool // instances of workers that are being emptied
	closed  bool            // no more of them
}

// New returns a Service. Close ends it.
func New(cfg Config, sessions *session.Manager, p *placement.Placement, f *fleet.Fleet, log *zap.Logger) *Service {
	s := &Service{cfg: cfg, sessions: sessions, placement: p, fleet: f, log: log, leaving: map[string]bool{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close gives up what workers have asked for, and waits until nothing of it runs any more.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
}

// Swap moves one session, and returns how that went when it is over. Stream 0 is the only one of the connection; to may
// be empty, for any other worker. If ctx ends before the cut, the session stays where it is. The error says why nothing
// was begun; how a swap ended that was begun is in its record.
func (s *Service) Swap(ctx context.Context, connectionID string, stream uint64, to string) (migration.Record, error) {
	found, err := s.sessions.Find(connectionID, stream)
	if err != nil {
		return migration.Record{}, err
	}
	if to != "" {
		if err := s.placement.Check(to, found.Need()); err != nil {
			return migration.Record{}, err
		}
	}
	s.log.Info("operator moves a stream", zap.String("connection.id", connectionID), zap.Uint64("stream.id", found.Who().StreamID))
	over := make(chan migration.Record, 1)
	rollBack := found.Initiate(handover.Plan{To: to, Cause: "operator", Confirm: s.cfg.Confirm, Done: func(r migration.Record) { over <- r }})
	defer context.AfterFunc(ctx, func() { rollBack("the operator gave it up") })()
	r := <-over
	if r.State == migration.Idle.String() {
		return r, wire.Errorf(wire.CodeConflict, "%s", r.Reason)
	}
	return r, nil
}

// Decide confirms a planned swap that waits for it, or vetoes one before its cut. The error says why that is not
// possible.
func (s *Service) Decide(connectionID string, stream uint64, confirm bool, reason string) error {
	found, err := s.sessions.Find(connectionID, stream)
	if err != nil {
		return err
	}
	s.log.Info("operator decides on a planned swap", zap.String("connection.id", connectionID), zap.Uint64("stream.id", found.Who().StreamID),
		zap.Bool("confirm", confirm), zap.String("reason", reason))
	if reason == "" {
		reason = "vetoed by the operator"
	}
	answer := make(chan error, 1)
	found.Decide(confirm, reason, func(err error) { answer <- err })
	return <-answer
}

// Undrain puts a worker back into use. A Drain of it that is under way ends in an error.
func (s *Service) Undrain(label string) error {
	err := s.fleet.Undrain(label)
	if err == nil {
		s.log.Info("worker is back in use", zap.String("worker", label))
	}
	return err
}
