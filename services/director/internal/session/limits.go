package session

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
)

const (
	// minProgress is how many tokens an attempt must have delivered for the death of its worker not to be blamed on the
	// request.
	minProgress = 4
	// maxSuspected is how often in a row a worker that has never served anything may fail a stream, and it does not
	// count against the stream.
	maxSuspected = 16
	// maxDiffered bounds how often in a row engines may say that they would make another text: each has its ways to go on, which it
	// tries one after the other.
	maxDiffered = 16
	// maxFactor bounds how far a stream follows workers that have all become slow.
	maxFactor = 64
)

// blame counts what speaks against a stream: workers that died in a row because of its request, as far as one can tell,
// and how often it was moved. The session's goroutine owns it. It only counts; what follows from a number is decided by
// assignment.endingAfter.
type blame struct {
	deaths    int           // in a row, before progress
	began     uint64        // length of the log when the present attempt began
	factor    time.Duration // on the token timeout, doubled each time that it was missed
	moves     []time.Time   // of the last minute
	suspected int           // workers in a row that failed the stream, and had never served anything
	differed  uint32        // engines in a row that would have gone on with another text
}

// lost counts the loss of a worker after length tokens. exhausted says that the worker had sent all that it might,
// proven that it had served streams before.
func (b *blame) lost(cause link.Cause, length uint64, exhausted, proven bool) {
	progress := length - b.began
	if progress > 0 {
		b.differed = 0
	}
	if cause == link.CauseDiffers {
		b.differed++
	}
	if progress >= minProgress {
		b.deaths = 0
	}
	if progress >= 4*minProgress {
		b.factor = 1
	}
	switch {
	case progress == 0 && failing(cause) && !proven && b.suspected < maxSuspected:
		b.suspected++ // the worker's fault, as far as one can tell
	case cause == link.CauseStuck && progress == 0, cause.Deadly() && progress < minProgress && !exhausted:
		b.deaths++
	}
}

// failing reports whether a cause says that a worker which lives is of no use to its streams.
func failing(cause link.Cause) bool {
	switch cause { //nolint:exhaustive // at all others the worker is gone, or declines
	case link.CauseEngine, link.CauseStuck, link.CauseAttach, link.CauseDiverged, link.CauseProtocol:
		return true
	}
	return false
}

// stuck counts a missed token timeout.
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

// calm is how much time a worker must have left for its stream to be calm. It is twice the time between two glances:
// the owner is woken before the time is up, however soon that comes, and on a machine too busy to glance as often.
func (c Config) calm() time.Duration { return c.Tokens.TokenMin / 2 }
