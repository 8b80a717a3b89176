package cli

import (
	"slices"

	"github.com/connswap/connswap/services/client/connswap"
)

// report is what has happened so far, as every output tells it.
type report struct {
	connection string
	director   string
	start, now connswap.Proof // read at the start, or when the stream was resumed last; and the last time it was read
	resumes    int            // how often the stream went on over another QUIC connection
	stream     uint64

	worker   string // that serves the stream
	epoch    uint64
	sequence uint64 // of the last token
	workers  []string
	swaps    int
	longest  connswap.Swapped // with the longest gap; zero before a swap
}

// enter keeps the report up to date with an event.
func (r *report) enter(event connswap.Event) {
	switch e := event.(type) {
	case connswap.Assigned:
		r.serve(e.Worker, e.Epoch)
	case connswap.Swapped:
		r.serve(e.To, e.Epoch)
		r.swaps++
		r.now = e.Proof
		if e.Gap > r.longest.Gap {
			r.longest = e
		}
	case connswap.Resumed:
		r.resumes++
		r.start, r.now = e.Proof, e.Proof
	case connswap.Token:
		r.sequence = e.Sequence
	}
}

func (r *report) serve(worker string, epoch uint64) {
	r.worker, r.epoch = worker, epoch
	if !slices.Contains(r.workers, worker) {
		r.workers = append(r.workers, worker)
	}
}

// sameConnection reports whether the QUIC connection is the one of the start.
func (r *report) sameConnection() bool { return r.now == r.start && r.resumes == 0 }
