package servertest

import (
	"slices"
	"sync"
	"time"
)

// faultScript decides which requests suffer. It is safe for concurrent use.
type faultScript struct {
	mu     sync.Mutex
	faults []*scripted
}

type scripted struct {
	Fault
	seen int // matching requests
}

func (f *faultScript) add(faults []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		f.faults = append(f.faults, &scripted{Fault: fault})
	}
}

func (f *faultScript) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// of returns the faults that hit a request, and counts it.
func (f *faultScript) of(r Request) []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var hits []Fault
	for _, fault := range f.faults {
		if fault.Match != nil && !fault.Match(r) || fault.Kind == RefusePrefill && !r.Continues {
			continue
		}
		if fault.hits(fault.seen) {
			hits = append(hits, fault.Fault)
		}
		fault.seen++
	}
	return hits
}

// hits says whether the n-th matching request suffers.
func (f *Fault) hits(n int) bool {
	n -= f.Skip
	times := max(1, f.Times)
	switch {
	case n < 0:
		return false
	case f.Times == Forever:
		return true
	case f.Good > 0:
		return n%(times+f.Good) < times
	default:
		return n < times
	}
}

// has returns the first fault of a kind.
func has(faults []Fault, kind FaultKind) (Fault, bool) {
	i := slices.IndexFunc(faults, func(f Fault) bool { return f.Kind == kind })
	if i < 0 {
		return Fault{}, false
	}
	return faults[i], true
}

func delayOf(faults []Fault, kind FaultKind) time.Duration {
	fault, _ := has(faults, kind)
	return fault.Delay
}

// applyToEvent carries out the faults that change every event.
func applyToEvent(faults []Fault, event object) {
	for _, fault := range faults {
		switch fault.Kind {
		case NullErrors:
			event["error"] = nil
		case NoFinish:
			withoutFinish(event)
		default:
		}
	}
}

// withoutFinish takes the finish out of an event of any kind's form.
func withoutFinish(event object) {
	choices, _ := event["choices"].([]object)
	for _, choice := range choices {
		choice["finish_reason"] = nil
	}
	if meta, ok := event["meta_info"].(object); ok {
		meta["finish_reason"] = nil
	}
	if _, ok := event["stop_type"]; ok {
		event["stop"], event["stop_type"] = false, "none"
	}
}
