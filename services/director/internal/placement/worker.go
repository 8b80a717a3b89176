package placement

import (
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// Up makes a link one of those that get streams.
func (p *Placement) Up(l *link.Link) {
	p.mu.Lock()
	defer p.unlock()
	w := &worker{link: l, requests: map[*Request]struct{}{}}
	w.Candidate = routing.Candidate{
		Label: l.Worker(), Models: slices.Clone(l.Models()), Capacity: l.Peer().Capacity,
		MaxHandovers: p.cfg.MaxPerTarget, Latency: p.router.NewLatency(),
	}
	p.refresh(w)
	p.cooldowns.goOn(w)
	p.add(w)
}

// refresh asks whether a worker takes streams.
func (p *Placement) refresh(w *worker) {
	w.Available, w.Drained = w.link.Available(), p.fleet.Drained(w.Label)
}

// Failed says that a worker has let go of all its streams. Its link stays.
func (p *Placement) Failed(l *link.Link) {
	p.mu.Lock()
	defer p.unlock()
	if w := p.byLink[l]; w != nil {
		p.refresh(w)
		p.lose(w, link.CauseReported)
	}
}

// Changed says that a worker takes streams which it did not take before, or no longer does: because the worker says so,
// or an operator.
func (p *Placement) Changed(l *link.Link) { p.change(l, p.refresh) }

// Remodelled says that a worker has other models than it had. Streams stay where they are.
func (p *Placement) Remodelled(l *link.Link) {
	p.change(l, func(w *worker) {
		w.Models = slices.Clone(l.Models())
		for r := range w.requests {
			i := slices.IndexFunc(w.Models, func(m routing.Model) bool { return m.Name == r.model.Name })
			if i < 0 {
				gone := *r.model
				r.model = &gone // one that it has no more
				continue
			}
			r.model = &w.Models[i]
			r.model.Granted++
		}
	})
}

// Reported takes note of how many streams a worker has by its own count. Those that this director did not give it are
// other directors'.
func (p *Placement) Reported(l *link.Link, streams int) {
	p.change(l, func(w *worker) { w.Foreign = max(0, streams-w.Granted) })
}

// declinedFor is how long a worker that declined a stream gets no other. It is short because the usual reason, a status
// that crossed with the attempt, is over at once.
const declinedFor = 250 * time.Millisecond

// Declined says that a worker declined a stream for want of room, or because it takes none: that is no failure.
func (p *Placement) Declined(l *link.Link) {
	p.change(l, func(w *worker) {
		w.Candidate.Declined = true
		if w.declined != nil {
			w.declined.Reset(declinedFor)
			return
		}
		w.declined = time.AfterFunc(declinedFor, func() {
			p.change(l, func(w *worker) { w.Candidate.Declined = false })
		})
	})
}

// change changes a worker, if its link is up, and looks for requests that fit now.
func (p *Placement) change(l *link.Link, change func(w *worker)) {
	p.mu.Lock()
	defer p.unlock()
	if w := p.byLink[l]; w != nil {
		change(w)
		p.improved(w)
	}
}

// Latency is where the times between tokens of a worker's streams go, as the streams measure them; nil if nobody needs
// them.
func (p *Placement) Latency(l *link.Link) *routing.Latency {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.byLink[l]; w != nil {
		return w.Candidate.Latency
	}
	return nil
}

// On returns the ids of the sessions that have a place at a worker, in the order in which they move. If instance is not
// empty, it has to be that one.
func (p *Placement) On(label, instance string) []uint64 {
	l, err := p.fleet.Link(label)
	if err != nil || l == nil || instance != "" && l.Peer().Instance != instance {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.byLink[l]
	if w == nil {
		return nil
	}
	var ids []uint64
	for _, r := range w.inOrder() {
		ids = append(ids, r.ID)
	}
	return ids
}

// Blocker says in words what keeps a stream from leaving a worker now, or nothing.
func (p *Placement) Blocker(n routing.Need, label string) string {
	n.Kind, n.Avoid = migration.Planned, label
	p.mu.Lock()
	defer p.mu.Unlock()
	return routing.Unschedulable(n, p.candidates).Words(n)
}

// Alternative reports whether a worker other than the one to avoid, and sound as far as is known, could take a stream
// now.
func (p *Placement) Alternative(n routing.Need) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.candidates, func(c *routing.Candidate) bool {
		return routing.Fit(n, c) == "" && routing.RankOf(n, c).Class < routing.Avoided
	})
}

// Check says why a stream cannot be moved to a worker, whether that has room or not; or nil.
func (p *Placement) Check(label string, n routing.Need) error {
	l, err := p.fleet.Link(label)
	switch {
	case err != nil:
		return err
	case l == nil:
		return wire.Errorf(wire.CodeConflict, "%s is not connected", label)
	case p.fleet.Drained(label):
		return wire.Errorf(wire.CodeConflict, "%s is drained", label)
	}
	c := routing.Candidate{Models: l.Models()}
	if c.Model(n) == nil {
		return wire.Errorf(wire.CodeInvalid, "%s runs %s, the stream began with %s", label, link.Peer{Models: l.Models()}.Describe(), n.Fingerprint)
	}
	return nil
}

// Peer returns the link of a worker other than the one named that knows states and takes streams; nil if there is none.
// Where there are several, those with the fewest streams keep the most.
func (p *Placement) Peer(label string) *link.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *worker
	for _, w := range p.workers {
		if w.Label != label && w.link.Stateful() && w.Available && !w.Drained && (best == nil || w.Granted < best.Granted) {
			best = w
		}
	}
	if best == nil {
		return nil
	}
	return best.link
}

// Workers returns the registered workers by label, and how many streams without a worker wait for one.
func (p *Placement) Workers() (workers []fleet.Snapshot, waiting int) {
	workers = p.fleet.Workers()
	p.mu.Lock()
	defer p.mu.Unlock()
	at := map[string]*worker{}
	for _, w := range p.workers {
		at[w.Label] = w
	}
	for i := range workers {
		if w := at[workers[i].Worker]; w != nil {
			workers[i].Sessions, workers[i].Incoming, workers[i].Cooldown = w.Granted, w.Failovers+w.Planned, w.Cooling
		}
	}
	for _, q := range p.queues.all {
		if q.need.Kind != migration.Planned {
			waiting += q.length
		}
	}
	return workers, waiting
}
