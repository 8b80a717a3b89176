package stream

import "time"

// Timeouts bounds how long a worker may produce nothing for a stream. All are stall-proof time.
type Timeouts struct {
	FirstToken time.Duration // of an attempt
	TokenMin   time.Duration // the least for every other token
	Factor     float64       // of the stream's usual interval and its deviation
}

// cadence learns a stream's own rhythm. The estimate is that of TCP's round-trip time (RFC 6298 §2): a smoothed mean
// and a smoothed deviation. It judges by the stall-proof clock, whose grain is coarse, and measures with the wall
// clock.
type cadence struct {
	last      time.Duration // stall-proof time of the last token, or of the last time that the worker was allowed more
	mean, dev time.Duration
	known     bool
	fresh     bool // the next token is the first of its attempt: it says nothing about the rhythm

	at       time.Time     // wall clock at the last token, or when a worker that had sent all that it might was allowed more, or left
	interval time.Duration // usual one, by the wall clock
}

// restart begins a new attempt.
func (c *cadence) restart(now time.Duration) { c.last, c.fresh = now, true }

// allow says that the worker could not have sent anything until now.
func (c *cadence) allow(now time.Duration) { c.last = max(c.last, now) }

// starved says by the wall clock that the worker had sent all that it might until now.
func (c *cadence) starved(at time.Time) { c.at = at }

// token takes note of a token that came now, by both clocks.
func (c *cadence) token(now time.Duration, at time.Time) {
	interval, wall := now-c.last, at.Sub(c.at)
	c.last, c.at = now, at
	switch {
	case c.fresh:
		c.fresh = false
	case !c.known:
		c.mean, c.dev, c.interval, c.known = interval, interval/2, wall, true
	default:
		c.dev += (abs(interval-c.mean) - c.dev) / 4
		c.mean += (interval - c.mean) / 8
		c.interval += (wall - c.interval) / 8
	}
}

// timeout returns how long the stream may be silent now.
func (c *cadence) timeout(t Timeouts) time.Duration {
	if c.fresh || !c.known {
		return t.FirstToken
	}
	return max(t.TokenMin, time.Duration(t.Factor*float64(c.mean+c.dev)))
}

// gap returns how long no token has come, beyond the usual interval, though one might have come; by the wall clock. It
// is 0 before the first token.
func (c *cadence) gap(now time.Time) time.Duration {
	if c.at.IsZero() {
		return 0
	}
	return max(0, now.Sub(c.at)-c.interval)
}

func abs(d time.Duration) time.Duration { return max(d, -d) }
