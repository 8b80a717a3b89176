package maintenance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/wire"
)

// look is how often a drain looks for sessions that it has to move, and tells how far it is; and how long it leaves a
// session alone whose swap has failed.
const look = 100 * time.Millisecond

var (
	errTimeout   = errors.New("the time is up")
	errUndrained = errors.New("was put back into use")
)

// Drain takes a worker out of use and moves everything away from it. It ends when the worker is empty, or with an error
// that says what is in the way: after timeout, or with ctx. The worker stays out of use until Undrain. progress is
// called now and then, and must not block.
func (s *Service) Drain(ctx context.Context, label string, timeout time.Duration, force bool, progress func(Moves)) (Moves, error) {
	if err := s.fleet.Drain(label, force); err != nil {
		return Moves{}, err
	}
	s.log.Info("draining worker", zap.String("worker", label))
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	moves, err := s.empty(ctx, evacuation{label: label, cause: "drain", confirm: s.cfg.Confirm}, progress)
	if err == nil {
		s.log.Info("worker is drained", zap.String("worker", label), zap.Int("moved", moves.Moved))
	}
	return moves, err
}

// Leaving empties an instance of a worker that is about to stop, in the background, until it is empty or Close is
// called. No operator is asked: the worker stops in any case. It does not block, and may be called again while it is
// under way.
func (s *Service) Leaving(label, instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leaving[instance] {
		return
	}
	s.leaving[instance] = true
	s.running.Go(func() {
		defer s.forgetLeaving(instance)
		moves, err := s.empty(s.ctx, evacuation{label: label, instance: instance, cause: "worker shuts down"}, func(Moves) {})
		s.log.Info("worker leaves", zap.String("worker", label), zap.Int("moved", moves.Moved), zap.Int("failed", moves.Failed), zap.Error(err))
	})
}

// forgetLeaving lets the instance ask again.
func (s *Service) forgetLeaving(instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaving, instance)
}

// evacuation says which worker is emptied.
type evacuation struct {
	label    string
	instance string // the process that is emptied; if empty, whichever has the label, until the label is put back into use
	cause    string
	confirm  bool // an operator has to confirm each swap
}

// empty moves all sessions away from a worker, until there are none or ctx ends. It looks anew at each tick, since
// sessions may still come: those that were on their way to the worker when it was taken out of use.
func (s *Service) empty(ctx context.Context, e evacuation, progress func(Moves)) (Moves, error) {
	m := s.newMover(e.cause, e.confirm)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		remaining := s.on(e.label, e.instance)
		m.moves.Remaining = len(remaining)
		if e.instance == "" && !s.fleet.Drained(e.label) {
			m.giveUp(errUndrained)
			return m.moves, wire.Errorf(wire.CodeConflict, "%s %v", e.label, errUndrained)
		}
		if len(remaining) == 0 && len(m.under) == 0 {
			m.moves.Blockers = nil
			progress(m.moves)
			return m.moves, nil
		}
		for _, one := range remaining {
			if one.Worker() == e.label {
				m.start(one, "")
			}
			one.Forsake(e.label)
		}
		m.moves.Blockers = s.blockers(m, remaining, e.label)
		progress(m.moves)
		if !m.wait(ctx, tick.C) {
			m.giveUp(context.Cause(ctx))
			remaining = s.on(e.label, e.instance)
			m.moves.Remaining = len(remaining)
			return m.moves, s.stopped(ctx, e.label, m.moves)
		}
	}
}

// wait counts outcomes until the next tick, or until half of the swaps that may be under way are over. It reports false
// when ctx has ended.
func (m *mover) wait(ctx context.Context, tick <-chan time.Time) bool {
	for {
		select {
		case o := <-m.done:
			m.account(o)
			if len(m.under) <= m.atOnce/2 { // time to begin more
				return true
			}
		case <-tick:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// on returns the sessions that a worker has, or is to get.
func (s *Service) on(label, instance string) []*session.Session {
	return s.sessions.Get(s.placement.On(label, instance)...)
}

// stopped is why a worker was not emptied: nil if it was, in the very end.
func (s *Service) stopped(ctx context.Context, label string, moves Moves) error {
	if moves.Remaining == 0 {
		return nil
	}
	why := fmt.Sprintf("nothing is in the way, it needs more time (%d moved so far)", moves.Moved)
	if len(moves.Blockers) > 0 {
		why = strings.Join(moves.Blockers, "; ")
	}
	return wire.Errorf(wire.CodeConflict, "%v with %s still on %s, which stays out of use: %s",
		context.Cause(ctx), plural(moves.Remaining, "stream"), label, why)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
