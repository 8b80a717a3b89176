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

// notice is one thing to be told: a grant, that a request has to wait, or the loss of a worker.
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
