package monitor

import "time"

const (
	tripsAfter = 5 // failures in a row; those of streams that end together are one
	together   = 500 * time.Millisecond
	firstRest  = 2 * time.Second
	longRest   = time.Minute
	// A server that is lost so often within flapping rests, too.
	maxFlaps = 3
	flapping = time.Minute
)

// breaker has a server rest that fails again and again, each time longer. When the rest is over one token is tried: only if that comes
// the server gets streams again. The Monitor's lock guards it.
type breaker struct {
	failures int         // in a row
	failed   time.Time   // the last one
	lost     []time.Time // when the server was lost lately
	rest     time.Duration
	until    time.Time // it rests until then, and is not trusted before a token has come; zero while it is
}

// attempt takes note of how an attempt came out.
func (b *breaker) attempt(ok bool, now time.Time) {
	if ok {
		b.failures = 0
		if b.until.IsZero() {
			b.rest = 0
		}
		return
	}
	if now.Sub(b.failed) < together {
		return
	}
	b.failed = now
	if b.failures++; b.failures >= tripsAfter {
		b.trip(now)
	}
}

// gone takes note that the server was lost.
func (b *breaker) gone(now time.Time) {
	for len(b.lost) > 0 && now.Sub(b.lost[0]) > flapping {
		b.lost = b.lost[1:]
	}
	if b.lost = append(b.lost, now); len(b.lost) > maxFlaps {
		b.trip(now)
	}
}

func (b *breaker) trip(now time.Time) {
	if !b.until.IsZero() && now.Before(b.until) {
		return
	}
	b.rest = min(max(firstRest, 2*b.rest), longRest)
	b.until, b.failures = now.Add(b.rest), 0
}

// tried takes note of what came of the token with which the rest ends.
func (b *breaker) tried(ok bool, now time.Time) {
	if ok {
		b.until, b.lost = time.Time{}, nil
		return
	}
	b.trip(now)
}

// state is for people.
func (b *breaker) state(now time.Time) string {
	switch {
	case b.until.IsZero():
		return "closed"
	case now.Before(b.until):
		return "open"
	}
	return "half-open"
}
