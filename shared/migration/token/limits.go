package token

import (
	"sync"

	"golang.org/x/time/rate"
)

// targetLimits bounds the rate of tokens, for each target by itself. It is safe for concurrent use.
type targetLimits struct {
	perSecond int

	mu       sync.Mutex // of the following
	limiters map[string]*rate.Limiter
	sweepAt  int // number of limiters at which to look which ones are needed
}

// sweepLeast is a number of limiters that is not worth a look.
const sweepLeast = 64

func newTargetLimits(perSecond int) targetLimits {
	return targetLimits{perSecond: perSecond, limiters: map[string]*rate.Limiter{}, sweepAt: sweepLeast}
}

// allow reports whether target may have another token now.
func (p *targetLimits) allow(target string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limiter, ok := p.limiters[target]
	if !ok {
		p.sweep()
		limiter = rate.NewLimiter(rate.Limit(p.perSecond), p.perSecond)
		p.limiters[target] = limiter
	}
	return limiter.Allow()
}

// sweep forgets the limiters that nobody can tell from new ones: those not used for a second. It looks at all each
// time that their number has doubled, so there are at most twice as many as targets in one second.
func (p *targetLimits) sweep() {
	if len(p.limiters) < p.sweepAt {
		return
	}
	for target, limiter := range p.limiters {
		if limiter.Tokens() >= float64(p.perSecond) {
			delete(p.limiters, target)
		}
	}
	p.sweepAt = max(sweepLeast, 2*len(p.limiters))
}
