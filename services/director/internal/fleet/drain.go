package fleet

import (
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// drainMarkTTL is how long a drain mark is kept for a label under which nobody registers.
const drainMarkTTL = 24 * time.Hour

// Drain takes a worker out of use: it gets nothing new, until Undrain, however often it registers anew within a day.
// Its streams stay where they are; moving them is the caller's part. Unless forced, the last worker that could take
// streams is not taken away.
func (f *Fleet) Drain(label string, force bool) error {
	f.mu.Lock()
	if f.workers[label] == nil && !f.hasDrainMark(label) {
		f.mu.Unlock()
		return unknown(label)
	}
	if !force && !f.spare(label) {
		f.mu.Unlock()
		return wire.Errorf(wire.CodeNoWorker, "%s is the last worker that takes sessions; start another one first, or force it", label)
	}
	begins := !f.hasDrainMark(label)
	if begins {
		f.drained[label] = time.Time{}
	}
	f.sendDrainMark(f.workers[label])
	f.mu.Unlock()
	if begins {
		f.deps.Events.Publish(event.WorkerDraining{Worker: label, Reason: "an operator asks for that"})
	}
	f.changed(label)
	return nil
}

// Undrain puts a worker back into use.
func (f *Fleet) Undrain(label string) error {
	err := f.unmark(label)
	if err == nil {
		f.changed(label)
	}
	return err
}

// changed tells the placement, if the worker's link is up.
func (f *Fleet) changed(label string) {
	if l, _ := f.Link(label); l != nil {
		f.placement.Changed(l)
	}
}

// unmark removes a drain mark. The error says that there is none, or no such worker.
func (f *Fleet) unmark(label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.hasDrainMark(label):
		delete(f.drained, label)
		f.sendDrainMark(f.workers[label])
		return nil
	case f.workers[label] == nil:
		return unknown(label)
	}
	return wire.Errorf(wire.CodeInvalid, "%s is not drained", label)
}

// Drained reports whether a worker is out of use.
func (f *Fleet) Drained(label string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hasDrainMark(label)
}

// hasDrainMark reports whether a label is out of use. f.mu is held.
func (f *Fleet) hasDrainMark(label string) bool {
	_, hasDrainMark := f.drained[label]
	return hasDrainMark
}

// unattended takes note of whether a worker is registered under a label, and forgets marks that nobody came back to.
// f.mu is held.
func (f *Fleet) unattended(label string, since time.Time) {
	maps.DeleteFunc(f.drained, func(_ string, since time.Time) bool { return !since.IsZero() && time.Since(since) > drainMarkTTL })
	if f.hasDrainMark(label) {
		f.drained[label] = since
	}
}

// spare reports whether a worker other than label takes streams. f.mu is held.
func (f *Fleet) spare(label string) bool {
	return slices.ContainsFunc(f.links, func(l *link.Link) bool {
		return l.Worker() != label && !f.hasDrainMark(l.Worker()) && l.Available()
	})
}

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
