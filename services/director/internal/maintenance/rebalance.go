package maintenance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/wire"
)

// maxFailures is how many swaps of a rebalancing may fail, beyond those that succeed, before it is given up.
const maxFailures = 10

var errTooManyFailures = errors.New("too many swaps failed")

// Rebalance moves sessions from the fullest worker to the emptiest until no move would make them more even: measured in
// sessions by capacity, among workers with the same engine. It begins Config.SwapsPerSecond. progress must not block.
func (s *Service) Rebalance(ctx context.Context, progress func(Moves)) (Moves, error) {
	s.log.Info("rebalancing")
	m := s.newMover("rebalance", s.cfg.Confirm)
	ticker := time.NewTicker(time.Second / time.Duration(s.cfg.SwapsPerSecond))
	defer ticker.Stop()
	going := map[*session.Session]string{} // where each swap under way leads
	for {
		from, to, distance := s.uneven(going)
		m.moves.Remaining = distance + len(m.under)
		progress(m.moves)
		if from == "" && len(m.under) == 0 {
			s.log.Info("rebalanced", zap.Int("moved", m.moves.Moved))
			return m.moves, nil
		}
		select {
		case <-ctx.Done():
			m.giveUp(context.Cause(ctx))
			return m.moves, wire.Errorf(wire.CodeCancelled, "%v", context.Cause(ctx))
		case o := <-m.done:
			m.account(o)
			if _, moving := m.under[o.session]; !moving {
				delete(going, o.session)
			}
			if m.moves.Failed > m.moves.Moved+maxFailures {
				m.giveUp(errTooManyFailures)
				return m.moves, wire.Errorf(wire.CodeConflict, "%d swaps failed; the last: %s", m.moves.Failed, m.last)
			}
		case <-ticker.C:
			if one := s.candidate(from, m); one != nil && m.start(one, to) {
				going[one] = to
			}
		}
	}
}

// candidate returns the first session of a worker that can be moved; nil if there is none now.
func (s *Service) candidate(label string, m *mover) *session.Session {
	for _, one := range s.on(label, "") {
		if m.ready(one) && one.Worker() == label {
			return one
		}
	}
	return nil
}

// uneven returns the workers between which a session should move, and how many have to move between these two. The
// swaps under way, which lead to going, count as done: so a rebalancing does not move more than it has to. It returns
// empty labels where all is even.
func (s *Service) uneven(going map[*session.Session]string) (from, to string, distance int) {
	all, _ := s.placement.Workers()
	leaving, coming := map[string]int{}, map[string]int{}
	for one, label := range going {
		if at := one.Worker(); at != label {
			leaving[at]++
			coming[label]++
		}
	}
	groups := map[string][]fleet.Snapshot{}
	for _, w := range all {
		if w.Connected && w.Available && !w.Draining {
			w.Sessions = s.sessionsAt(w.Worker) - leaving[w.Worker] + coming[w.Worker]
			engines := fmt.Sprint(w.Fingerprints()) // among workers with the same ones any stream may move
			groups[engines] = append(groups[engines], w)
		}
	}
	for _, engine := range slices.Sorted(maps.Keys(groups)) {
		group := groups[engine]
		fullest, emptiest := group[0], group[0]
		for _, w := range group {
			if load(w, 0) > load(fullest, 0) {
				fullest = w
			}
			if load(w, 0) < load(emptiest, 0) {
				emptiest = w
			}
		}
		n := 0
		for load(fullest, -n-1) >= load(emptiest, n+1) && n < fullest.Sessions {
			n++
		}
		if n > distance {
			from, to, distance = fullest.Worker, emptiest.Worker, n
		}
	}
	return from, to, distance
}

// load is how full a worker would be with more sessions, as a fraction.
func load(w fleet.Snapshot, more int) float64 {
	return float64(w.Sessions+more) / float64(w.Capacity)
}

// sessionsAt counts the sessions that a worker serves, without those that are on their way to it.
func (s *Service) sessionsAt(label string) int {
	n := 0
	for _, one := range s.on(label, "") {
		if one.Worker() == label {
			n++
		}
	}
	return n
}
