package pool

import (
	"slices"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Workers returns the registered workers by label, and how many sessions wait for one.
func (p *Pool) Workers() (workers []fleet.Snapshot, waiting int) {
	workers = p.fleet.Workers()
	p.mu.Lock()
	defer p.mu.Unlock()
	at := make(map[string]*target, len(p.targets))
	for _, t := range p.targets {
		at[t.Worker()] = t
	}
	for i := range workers {
		if t := at[workers[i].Worker]; t != nil {
			workers[i].Sessions, workers[i].Incoming = len(t.placed), t.incomingSwaps()
		}
	}
	return workers, len(p.waiting[migration.Placement]) + len(p.waiting[migration.Failover])
}

// On returns the sessions that a worker has, or is to get, in the order in which they move. If instance is not empty,
// it has to be that one.
func (p *Pool) On(label, instance string) []Placed {
	var on []*Waiter
	p.mu.Lock()
	for _, t := range p.targets {
		if t.Worker() == label && (instance == "" || t.Peer().Instance == instance) {
			for _, w := range t.placed {
				on = append(on, w)
			}
		}
	}
	p.mu.Unlock()
	slices.SortFunc(on, (*Waiter).compare)
	placed := make([]Placed, len(on))
	for i, w := range on {
		placed[i] = w.Session
	}
	return placed
}

// Obstacle says in words what keeps a session from leaving a worker, or nothing.
func (p *Pool) Obstacle(fingerprint, label string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &Waiter{Kind: migration.Planned, Fingerprint: fingerprint, Avoid: label}
	if p.pick(w) != nil {
		return ""
	}
	return p.shortage(w)
}

// Check says why a session with this engine cannot be moved to a worker, whether it has room or not; or nil.
func (p *Pool) Check(label, fingerprint string) error {
	l, err := p.fleet.Link(label)
	switch {
	case err != nil:
		return err
	case l == nil:
		return wire.Errorf(wire.CodeConflict, "%s is not connected", label)
	case p.fleet.Drained(label):
		return wire.Errorf(wire.CodeConflict, "%s is drained", label)
	case fingerprint != "" && l.Fingerprint() != fingerprint:
		return wire.Errorf(wire.CodeInvalid, "%s runs %s, the stream began with %s", label, l.Fingerprint(), fingerprint)
	}
	return nil
}
