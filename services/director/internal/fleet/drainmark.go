package fleet

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// An operator's drain outlives the director that was told of it: the worker remembers, until it is put back into use or
// its process ends, and says so wherever it registers.

// adoptDrainMark takes a worker out of use that was drained by an operator of a director before this one. Only a worker
// that is new here is believed: of one that it knows the director knows better. f.mu is held.
func (f *Fleet) adoptDrainMark(w *worker) {
	w.toldDrained = w.Drained
	if !w.Drained || f.hasDrainMark(w.Label) {
		return
	}
	f.drained[w.Label] = time.Time{}
	f.log.Warn("worker stays drained, as an operator of a director before this one wished; client undrain puts it back into use",
		zap.String("worker", w.Label), zap.String("told_by", w.DrainedBy))
}

// sendDrainMark lets a worker remember whether it is drained, if it has a link; else it is told once it has one.
// Telling it again does no harm: what was sent on a link that broke may not have arrived. f.mu is held.
func (f *Fleet) sendDrainMark(w *worker) {
	if w == nil || w.link == nil {
		return
	}
	if drained := f.hasDrainMark(w.Label); drained || w.toldDrained {
		w.toldDrained = true
		w.link.Send(&wirepb.DrainMark{Drained: drained})
	}
}
