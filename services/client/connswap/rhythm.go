package connswap

import (
	"slices"
	"time"
)

// rhythm measures the time between tokens. It does so where they are read: for a reader that keeps up, that is
// when they arrive.
type rhythm struct {
	last   time.Time // of the last token; zero before the first
	recent [32]time.Duration
	count  int // intervals seen; the last len(recent) of them are kept
}

// beat notes a token.
func (r *rhythm) beat(now time.Time) {
	if !r.last.IsZero() {
		r.recent[r.count%len(r.recent)] = now.Sub(r.last)
		r.count++
	}
	r.last = now
}

// pause notes the first token after a swap and returns the time since the one before, zero if there is none.
// It does not count as an interval.
func (r *rhythm) pause(now time.Time) time.Duration {
	before := r.last
	r.last = now
	if before.IsZero() {
		return 0
	}
	return now.Sub(before)
}

// usual is the median of the recent intervals, zero without any. A pause hardly moves it.
func (r *rhythm) usual() time.Duration {
	n := min(r.count, len(r.recent))
	if n == 0 {
		return 0
	}
	sorted := r.recent // a copy
	slices.Sort(sorted[:n])
	return sorted[n/2]
}

// patience is how long a silence is nothing unusual: three times the median of the recent intervals, and half as long again
// as the longest of them, so that tokens which come in bursts are no silence after each of them. It is zero before there are
// some.
func (r *rhythm) patience() time.Duration {
	n := min(r.count, len(r.recent))
	if n < leastIntervals {
		return 0
	}
	return max(3*r.usual(), slices.Max(r.recent[:n])*3/2)
}

// leastIntervals make a rhythm.
const leastIntervals = 4
