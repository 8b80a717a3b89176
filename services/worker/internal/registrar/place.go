package registrar

import "sync"

// place is what the worker has at one process of a director: one registration, which the contact at one of that
// process's addresses holds. Those at its other addresses wait for it to be given up.
type place struct {
	freed chan struct{} // closed when the contact gives it up

	// Guarded by places.mu.
	waiting     int    // contacts that wait
	registered  bool   // the director has said so
	unreachable string // why this director cannot reach the worker's USER port, as it said last
}

// places are all of a Registrar's. It is safe for concurrent use.
type places struct {
	mu sync.Mutex
	of map[string]*place // by instance of the director, or address; an entry lasts as long as a contact holds it
}

// claim returns the place at a process of a director, and whether the caller holds it now. If not, somebody else does.
func (p *places) claim(director string) (at *place, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.of[director]; at != nil {
		at.waiting++
		return at, false
	}
	at = &place{freed: make(chan struct{})}
	p.of[director] = at
	return at, true
}

// stopWaiting is called by whoever got a place that another one holds, when it waits for that no more.
func (p *places) stopWaiting(at *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at.waiting--
}

// free gives a place up.
func (p *places) free(director string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.of[director].freed)
	delete(p.of, director)
}

// rename makes a place known by another name. It is false if there is one of that name.
func (p *places) rename(from, to string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[to] != nil {
		return false
	}
	p.of[to] = p.of[from]
	delete(p.of, from)
	return true
}

// stand records that the director has registered the worker.
func (p *places) stand(at *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at.registered = true
}

// reached records why the director cannot reach the worker, empty if it can. It reports whether the one has turned into the
// other, and whether another contact waits for this place: its address may be a better one.
func (p *places) reached(at *place, unreachable string) (changed, contested bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = (at.unreachable == "") != (unreachable == "")
	at.unreachable = unreachable
	return changed, at.waiting > 0
}

// registered counts the registrations that stand.
func (p *places) registered() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.of {
		if at.registered {
			n++
		}
	}
	return n
}

// unreachable is empty unless all directors that the worker is registered at say that they cannot reach it.
func (p *places) unreachable() (reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.of {
		switch {
		case !at.registered:
		case at.unreachable == "":
			return ""
		default:
			reason = at.unreachable
		}
	}
	return reason
}
