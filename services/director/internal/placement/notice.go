package placement

import "github.com/connswap/connswap/services/director/internal/link"

// notices are what sessions have to be told, in the order in which it happened. Whoever adds some while nobody delivers
// becomes the one who delivers, until there are none; so a session hears of a grant before it hears of that worker's
// loss, on whichever goroutines these happened. It is guarded by Placement.mu, which is free during the calls. It is
// bounded by what can happen: each request waits, is granted and is lost once for each time that it is queued.
type notices struct {
	pending    []notice
	delivering bool
}

type noticeKind uint8

const (
	grants noticeKind = iota
	waits
	loses
)

type notice struct {
	kind    noticeKind
	request *Request // that was granted a place, or waits
	link    *link.Link
	reason  string
	loss    *loss
}

// loss is what a worker took with it.
type loss struct {
	requests []*Request // in the order in which they go
	link     *link.Link
	cause    link.Cause
}

func (s *notices) add(n notice) { s.pending = append(s.pending, n) }

// deliver is called with p.mu held, and returns with it held.
func (p *Placement) deliver() {
	s := &p.notices
	if s.delivering {
		return
	}
	s.delivering = true
	for len(s.pending) > 0 {
		batch := s.pending
		s.pending = nil
		p.mu.Unlock()
		for _, n := range batch {
			p.tell(n)
		}
		p.mu.Lock()
	}
	s.delivering = false
}

func (p *Placement) tell(n notice) {
	switch n.kind {
	case grants:
		n.request.Session.Granted(n.request, n.link)
	case waits:
		n.request.Session.Waiting(n.request, n.reason)
	case loses:
		p.putBack(n.loss)
	}
}

// putBack has the sessions of a lost worker fenced, all of them, and queues again those that want it, before the first
// new place is given: so they move in the order of their age.
func (p *Placement) putBack(l *loss) {
	again := make([]bool, len(l.requests))
	for i, r := range l.requests {
		again[i] = r.Session.Lost(r, l.link, l.cause)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range l.requests {
		if r.loss != l { // it was taken back meanwhile
			continue
		}
		r.state, r.loss = idle, nil
		if again[i] {
			p.queues.add(r)
		}
	}
	p.dispatch()
}
