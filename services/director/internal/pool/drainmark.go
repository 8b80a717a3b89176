package pool

import (
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// An operator's drain outlives the director that was told of it: the worker remembers, until it is put back into use or
// its process ends, and says so wherever it registers.

// adoptDrainMark takes a worker out of use that was drained by an operator of a director before this one. Only a worker
// that is new here is believed: of one that it knows the director knows better. p.mu is held.
func (p *Pool) adoptDrainMark(w *Worker) {
	w.marked = w.Drained
	if !w.Drained || p.draining[w.Label] {
		return
	}
	p.draining[w.Label] = true
	p.log.Warn("worker stays drained, as an operator of a director before this one wished; client undrain puts it back into use",
		zap.String("worker", w.Label), zap.String("told_by", w.DrainedBy))
}

// tellDrainMark lets a worker remember whether it is drained, if it has a link; else it is told once it has one. Telling it
// again does no harm: what was sent on a link that broke may not have arrived. p.mu is held.
func (p *Pool) tellDrainMark(w *Worker) {
	if w == nil || w.link == nil || w.Version < 2 {
		return
	}
	drained := p.draining[w.Label]
	if drained || w.marked {
		w.marked = true
		w.link.control.Send(&wirepb.DrainMark{Drained: drained})
	}
}
