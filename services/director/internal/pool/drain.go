package pool

import (
	"slices"

	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Drain takes a worker out of use: it gets nothing new, until Undrain, however often it registers anew. Its sessions
// stay where they are; moving them is the caller's part. Unless forced, the last worker that could take sessions is
// not taken away.
func (p *Pool) Drain(label string, force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers[label] == nil && !p.draining[label] {
		return p.unknown(label)
	}
	if !force && !p.spare(label) {
		return wire.Errorf(wire.CodeNoWorker, "%s is the last worker that takes sessions; start another one first, or force it", label)
	}
	p.draining[label] = true
	p.tellDrainMark(p.workers[label])
	return nil
}

// Undrain puts a worker back into use.
func (p *Pool) Undrain(label string) error {
	p.mu.Lock()
	if !p.draining[label] {
		defer p.mu.Unlock()
		if p.workers[label] == nil {
			return p.unknown(label)
		}
		return wire.Errorf(wire.CodeInvalid, "%s is not drained", label)
	}
	delete(p.draining, label)
	p.tellDrainMark(p.workers[label])
	after := p.dispatch()
	p.mu.Unlock()
	after()
	return nil
}

// Drained reports whether a worker is out of use.
func (p *Pool) Drained(label string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining[label]
}

// spare reports whether a worker other than label takes sessions. p.mu is held.
func (p *Pool) spare(label string) bool {
	return slices.ContainsFunc(p.links, func(l *Link) bool {
		return l.worker.Label != label && !p.draining[l.worker.Label] && l.available()
	})
}

func (p *Pool) unknown(label string) error {
	return wire.Errorf(wire.CodeNotFound, "no worker %q is registered", label)
}

// leaving notes that a worker asks to be emptied. That is over with its process: the label is free for the next.
func (p *Pool) leaving(l *Link) {
	p.changed()
	if p.deps.Draining != nil {
		p.deps.Draining(l.worker.Label, l.worker.Instance)
	}
}

// On returns the sessions that a worker has, or is to get, in the order in which they move. If instance is not empty,
// it has to be that one.
func (p *Pool) On(label, instance string) []Placed {
	p.mu.Lock()
	w := p.workers[label]
	if w == nil || w.link == nil || instance != "" && w.Instance != instance {
		p.mu.Unlock()
		return nil
	}
	l := w.link
	p.mu.Unlock()
	l.mu.Lock()
	all := make([]attempt, 0, len(l.attempts))
	for _, a := range l.attempts {
		all = append(all, a)
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b attempt) int { return a.wish.compare(b.wish) })
	placed := make([]Placed, len(all))
	for i, a := range all {
		placed[i] = a.session
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

// Announce sends a message to every worker that speaks at least the given version.
func (p *Pool) Announce(version uint32, m wire.Message) {
	p.mu.Lock()
	links := slices.Clone(p.links)
	p.mu.Unlock()
	for _, l := range links {
		if l.worker.Version >= version {
			l.control.Send(m)
		}
	}
}

// Peer returns the link of a worker other than the one named, that knows states and takes sessions; nil if there is none.
func (p *Pool) Peer(label string) *Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.links {
		l := p.links[(p.turn+i)%len(p.links)]
		if l.worker.Label != label && l.worker.Version >= 2 && l.worker.Stateful && !p.draining[l.worker.Label] && l.available() {
			return l
		}
	}
	return nil
}

// Check says why a session with this engine cannot be moved to a worker, whether it has room or not; or nil.
func (p *Pool) Check(label, fingerprint string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.workers[label]
	switch {
	case w == nil:
		return p.unknown(label)
	case w.link == nil:
		return wire.Errorf(wire.CodeConflict, "%s is not connected", label)
	case p.draining[label]:
		return wire.Errorf(wire.CodeConflict, "%s is drained", label)
	case fingerprint != "" && w.Fingerprint != fingerprint:
		return wire.Errorf(wire.CodeInvalid, "%s runs %s, the stream began with %s", label, w.Fingerprint, fingerprint)
	}
	return nil
}
