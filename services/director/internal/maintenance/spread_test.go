package maintenance

import (
	"errors"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
)

// spread has workers with so many sessions each.
type spread struct {
	label              string
	engine             string
	capacity, sessions int
	out                string // why it is out of use, if it is: full, drained, lost
}

func (w *world) spread(all []spread) {
	for _, s := range all {
		one := w.worker(s.label, s.capacity, func(p *link.Peer) { p.Models[0].Fingerprint = s.engine })
		w.begin(s.sessions)
		one.available(w, false)
	}
	for _, s := range all {
		w.workers[s.label].available(w, s.out != "full")
		switch s.out {
		case "drained":
			if err := w.fleet.Drain(s.label, true); err != nil {
				w.Fatal(err)
			}
		case "lost":
			w.workers[s.label].Lose(link.CauseTether)
		}
	}
}

// code is the code of an error, or nothing.
func code(err error) wire.Code {
	if e := new(wire.Error); errors.As(err, &e) {
		return e.Code
	}
	return ""
}
