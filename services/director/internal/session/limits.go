package session

import (
	"slices"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
)

const (
	// minProgress is how many tokens an attempt must have delivered for the death of its worker not to be blamed on the request.
	minProgress = 4
	// maxSuspects bounds how many workers that have not proved themselves may fail a stream without that being held against the stream.
	maxSuspects = 16
	// maxFactor bounds how far a stream follows workers that have all become slow.
	maxFactor = 64
)

// blame counts what speaks against a stream: workers that died in a row because of its request, as far as one can tell, and how often it was moved.
type blame struct {
	deaths int           // in a row, before progress
	began  uint64        // length of the log when the present attempt began
	factor time.Duration // on the token timeout, doubled each time that it was missed
	moves  []time.Time   // of the last minute
	failed []string      // labels of workers that failed the stream before they had served any, at most maxSuspects
}

// lost takes note that a worker is lost, after length tokens. excused says that it was not the request's doing.
func (b *blame) lost(cause link.Cause, length uint64, excused bool) {
	progress := length - b.began
	if progress >= minProgress {
		b.deaths = 0
	}
	if progress >= 4*minProgress {
		b.factor = 1
	}
	if !excused && (cause == link.CauseStuck && progress == 0 || cause.Deadly() && progress < minProgress) {
		b.deaths++
	}
}

// suspect reports whether what a worker which has not served any stream did to this one is held against the worker, and not against the stream: once for
// each worker.
func (b *blame) suspect(label string) bool {
	if len(b.failed) >= maxSuspects || slices.Contains(b.failed, label) {
		return false
	}
	b.failed = append(b.failed, label)
	return true
}

// stuck takes note that the token timeout was missed.
func (b *blame) stuck() { b.factor = min(2*b.factor, maxFactor) }

// moved counts a move that is about to begin, and returns how many there were within a minute.
func (b *blame) moved() int {
	now := time.Now()
	for len(b.moves) > 0 && now.Sub(b.moves[0]) > time.Minute {
		b.moves = b.moves[1:]
	}
	b.moves = append(b.moves, now)
	return len(b.moves)
}
