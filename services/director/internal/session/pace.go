package session

import "time"

// pace learns a stream's own rhythm, by the stall-proof clock. The estimate is that of TCP's round-trip time
// (RFC 6298 §2): a smoothed mean and a smoothed deviation.
type pace struct {
	last      time.Duration // of the last token, or of the last time the worker was allowed more
	mean, dev time.Duration
	known     bool
	fresh     bool // the next token is the first of its attempt: it says nothing about the rhythm
}

// restart begins a new attempt.
func (p *pace) restart(now time.Duration) { p.last, p.fresh = now, true }

// touch says that the worker could not have sent anything until now.
func (p *pace) touch(now time.Duration) { p.last = max(p.last, now) }

func (p *pace) token(now time.Duration) {
	interval := now - p.last
	p.last = now
	switch {
	case p.fresh:
		p.fresh = false
	case !p.known:
		p.mean, p.dev, p.known = interval, interval/2, true
	default:
		p.dev += (abs(interval-p.mean) - p.dev) / 4
		p.mean += (interval - p.mean) / 8
	}
}

// deadline returns how long the stream may be silent now.
func (p *pace) deadline(cfg Config) time.Duration {
	if p.fresh || !p.known {
		return cfg.FirstTokenTimeout
	}
	return max(cfg.TokenTimeoutMin, time.Duration(cfg.TokenFactor*float64(p.mean+p.dev)))
}

func abs(d time.Duration) time.Duration { return max(d, -d) }
