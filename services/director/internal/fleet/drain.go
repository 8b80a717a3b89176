package fleet

import (
	"slices"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
)

// Drain takes a worker out of use: it gets nothing new, until Undrain, however often it registers anew. Its streams
// stay where they are; moving them is the caller's part. Unless forced, the last worker that could take streams is
// not taken away.
func (f *Fleet) Drain(label string, force bool) error {
	f.mu.Lock()
	if f.workers[label] == nil && !f.drained[label] {
		f.mu.Unlock()
		return unknown(label)
	}
	if !force && !f.spare(label) {
		f.mu.Unlock()
		return wire.Errorf(wire.CodeNoWorker, "%s is the last worker that takes sessions; start another one first, or force it", label)
	}
	f.drained[label] = true
	f.tellDrainMark(f.workers[label])
	f.mu.Unlock()
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

func (f *Fleet) unmark(label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.drained[label]:
		delete(f.drained, label)
		f.tellDrainMark(f.workers[label])
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
	return f.drained[label]
}

// spare reports whether a worker other than label takes streams. f.mu is held.
func (f *Fleet) spare(label string) bool {
	return slices.ContainsFunc(f.links, func(l *link.Link) bool {
		return l.Worker() != label && !f.drained[l.Worker()] && l.Available()
	})
}
