package maintenance

import (
	"maps"
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
)

// Moves counts the sessions that are being moved.
type Moves struct {
	Remaining int      // still to be moved
	Moved     int      // swaps completed
	Failed    int      // swaps given up; their sessions are tried again
	Blockers  []string // what keeps the remaining ones, in words
}

// mover has a bounded number of planned swaps under way, for one drain or rebalancing. The goroutine of that operation
// owns it; sessions report to it through done, from their own goroutines, and are never blocked by it.
type mover struct {
	atOnce    int    // swaps
	transfers int    // of these, with an engine's state on its way
	cause     string // for people
	confirm   bool   // an operator has to confirm each

	under        map[*session.Session]func(reason string) // under way; the function gives the swap up
	cooldown     map[*session.Session]time.Time           // until when a session is not tried again: its last swap came to nothing
	transferring map[*session.Session]bool                // of those under way: an engine's state has yet to arrive
	done         chan outcome                             // has room for two of each under way
	moves        Moves
	last         string // why the last swap failed
}

// outcome is how a swap ended, or that its target has all that it needs.
type outcome struct {
	session *session.Session
	arrived bool
	record  migration.Record
}

// newMover returns a mover that has nothing under way. done has room for all that sessions may report, so that a mover
// which is busy, or has returned, blocks none of them.
func (s *Service) newMover(cause string, confirm bool) *mover {
	return &mover{
		atOnce: s.cfg.AtOnce, transfers: min(s.cfg.Transfers, s.cfg.AtOnce), cause: cause, confirm: confirm,
		under: map[*session.Session]func(string){}, cooldown: map[*session.Session]time.Time{},
		transferring: map[*session.Session]bool{}, done: make(chan outcome, 2*s.cfg.AtOnce),
	}
}

// start begins a swap, and reports whether that is possible now: the session is ready, and neither bound is reached. An
// empty to is any other worker.
func (m *mover) start(s *session.Session, to string) bool {
	stateful := s.Stateful() // each costs memory and network on both sides
	if !m.ready(s) || len(m.under) >= m.atOnce || stateful && len(m.transferring) >= m.transfers {
		return false
	}
	if stateful {
		m.transferring[s] = true
	}
	m.under[s] = s.Initiate(handover.Plan{
		To: to, Cause: m.cause, Confirm: m.confirm,
		Arrived: func() { m.done <- outcome{session: s, arrived: true} },
		Done:    func(r migration.Record) { m.done <- outcome{session: s, record: r} },
	})
	return true
}

// ready reports whether a session may be tried now: no swap of it is under way, or has just failed.
func (m *mover) ready(s *session.Session) bool {
	if time.Now().Before(m.cooldown[s]) {
		return false
	}
	delete(m.cooldown, s)
	_, moving := m.under[s]
	return !moving
}

// account counts what became of a swap.
func (m *mover) account(o outcome) {
	delete(m.transferring, o.session)
	if o.arrived {
		return
	}
	delete(m.under, o.session)
	now := time.Now()
	maps.DeleteFunc(m.cooldown, func(_ *session.Session, until time.Time) bool { return now.After(until) })
	m.cooldown[o.session] = now.Add(look)
	switch o.record.State {
	case migration.Completed.String():
		delete(m.cooldown, o.session)
		m.moves.Moved++
	case migration.Idle.String(): // it was busy, or over
	default:
		m.moves.Failed++
		m.last = o.record.Reason
	}
}

// giveUp ends the swaps under way whose cut was not made, and waits for all: afterwards none is under way.
func (m *mover) giveUp(why error) {
	for _, rollBack := range m.under {
		rollBack(why.Error())
	}
	for len(m.under) > 0 {
		m.account(<-m.done)
	}
}

// blockers says, in words for operators, what is in the way of sessions that stay: asked once for each need. Where
// placement knows of nothing, the reason why the last swap failed is given.
func (s *Service) blockers(m *mover, remaining []*session.Session, label string) []string {
	var words []string
	var asked []routing.Need
	for _, one := range remaining {
		need := one.Need()
		if slices.Contains(asked, need) {
			continue
		}
		asked = append(asked, need)
		if word := s.placement.Blocker(need, label); word != "" && !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	if len(words) == 0 && m.last != "" && len(remaining) > 0 {
		words = append(words, "the last swap failed: "+m.last)
	}
	return words
}
