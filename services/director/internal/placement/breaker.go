package placement

import (
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/link"
)

// The circuit breaker of a worker. Closed: it gets streams like every other. Open, which is called cooldown: none while
// a worker without a cooldown has room; if all have one, the least bad is used. Half open, after the cooldown: one
// stream at a time, the probe, until one makes progress, which closes it, or fails, which begins a longer cooldown.
const (
	// tolerated is how many streams in a row may fail at a worker that has proved itself: a single one may be to blame
	// itself.
	tolerated = 3
	// onTrial is how many streams a worker gets that has not proved itself, until one has made progress.
	onTrial = 2
	// A cooldown doubles with each failed probe, between these bounds. Half of each is random, so that workers of one
	// bad roll-out are not probed at the same moment.
	firstCooldown = time.Second
	lastCooldown  = time.Minute
	// errorWeight is the weight of the newest attempt in the fraction of those that fail.
	errorWeight = 0.125
)

// breaker is guarded by Placement.mu. What routing has to know of it is in worker.Candidate: Proven, Cooling, Trial,
// Failures, Errors.
type breaker struct {
	trials    int         // places whose attempts have neither made progress nor failed; planned handovers do not count
	failed    uint64      // session whose attempt failed last
	cooldowns int         // in a row
	cooldown  *time.Timer // runs while the worker is Cooling,
	warmAt    time.Time   // until then
	declined  *time.Timer // runs while it is Declined
}

func (b *breaker) stop() {
	for _, t := range []*time.Timer{b.cooldown, b.declined} {
		if t != nil {
			t.Stop()
		}
	}
}

// halfOpen reports whether the next stream is a probe.
func (w *worker) halfOpen() bool { return w.cooldowns > 0 && !w.Cooling }

// judge brings what routing has to know up to date.
func (w *worker) judge() {
	most := onTrial
	if w.halfOpen() {
		most = 1
	}
	w.Trial = !w.Proven && w.trials >= most
}

// endTrial says that it is known what became of a request's attempt, or that it is over.
func (p *Placement) endTrial(r *Request) {
	if r.onTrial {
		r.onTrial = false
		r.place.trials--
		r.place.judge()
	}
}

// Report says that r's attempt at l made progress, or that it failed, or stayed silent for too long, before it made
// any. The session reports once for each attempt, and reports a failure before it releases r. A worker that is lost
// needs no report.
func (p *Placement) Report(r *Request, l *link.Link, ok bool) {
	p.mu.Lock()
	defer p.unlock()
	w := p.byLink[l]
	if w == nil {
		return
	}
	if r.place == w {
		p.endTrial(r)
	}
	if ok {
		r.BadTries = 0
		p.succeeded(w)
		return
	}
	r.BadTries++
	p.failed(w, r)
}

func (p *Placement) succeeded(w *worker) {
	w.Errors *= 1 - errorWeight
	if w.Proven && w.Failures == 0 {
		return
	}
	if w.cooldowns > 0 {
		p.logOf(w).Info("worker is trusted again")
	}
	w.stopCooldown()
	w.Proven, w.Failures, w.cooldowns = true, 0, 0
	w.judge()
	p.improved(w)
}

// failed counts a failure, and begins a cooldown if there were too many. The failures of one stream in a row count once
// at a worker that has proved itself: it may be the stream's fault.
func (p *Placement) failed(w *worker, r *Request) {
	w.Errors += errorWeight * (1 - w.Errors)
	if w.Proven && w.Failures > 0 && w.breaker.failed == r.ID {
		return
	}
	w.Failures++
	w.breaker.failed = r.ID
	if !w.Cooling && (!w.Proven || w.Failures >= tolerated) {
		p.cool(w)
	}
}

// cool begins a cooldown.
func (p *Placement) cool(w *worker) {
	d := min(firstCooldown<<min(w.cooldowns, 10), lastCooldown)
	d = d/2 + time.Duration(p.random.Int64N(int64(d/2)))
	w.cooldowns++
	p.coolFor(w, d)
	p.logOf(w).Warn("worker gets no streams for a while: its attempts fail", zap.Int("failures", w.Failures), zap.Duration("cooldown", d))
}

func (p *Placement) coolFor(w *worker, d time.Duration) {
	w.Proven, w.Cooling, w.warmAt = false, true, time.Now().Add(d)
	w.cooldown = time.AfterFunc(d, func() { p.warm(w) })
	p.changes++
}

// suspect is what is remembered of a worker that died in cooldown, or under the first streams that it was given: a
// crash loop must not cost streams in every round.
type suspect struct {
	cooldowns, failures int
	warmAt, until       time.Time
}

// suspect remembers a worker that is lost, if there is a reason. What has not come back for long is forgotten.
func (p *Placement) suspect(w *worker, cause link.Cause) {
	if !w.Proven && !w.Cooling && w.trials > 0 && cause.Deadly() {
		w.Failures++
		p.cool(w)
	}
	now := time.Now()
	maps.DeleteFunc(p.suspects, func(_ string, s suspect) bool { return now.After(s.until) })
	if w.cooldowns > 0 {
		p.suspects[w.Label] = suspect{w.cooldowns, w.Failures, w.warmAt, now.Add(2 * lastCooldown)}
	}
}

// remember goes on with the cooldown that a worker was in when its link was lost.
func (p *Placement) remember(w *worker) {
	s, known := p.suspects[w.Label]
	if !known || time.Now().After(s.until) {
		return
	}
	delete(p.suspects, w.Label)
	w.cooldowns, w.Failures = s.cooldowns, s.failures
	if d := time.Until(s.warmAt); d > 0 {
		p.coolFor(w, d)
	}
}

// warm ends a cooldown: the next stream is a probe.
func (p *Placement) warm(w *worker) {
	p.mu.Lock()
	defer p.unlock()
	if time.Now().Before(w.warmAt) { // another one has begun meanwhile
		return
	}
	w.stopCooldown()
	w.judge()
	p.improved(w)
}

func (w *worker) stopCooldown() {
	if w.cooldown != nil {
		w.cooldown.Stop()
	}
	w.Cooling = false
}

// Proven reports whether a worker has served something since its link came up, or since it was last in cooldown. What
// fails at one that has not may be the worker's fault rather than the stream's.
func (p *Placement) Proven(l *link.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.byLink[l]
	return w != nil && w.Proven
}

// declinedFor is how long a worker that declined a stream gets no other. It is short because the usual reason, a status
// that crossed with the attempt, is over at once.
const declinedFor = 250 * time.Millisecond

// Declined says that a worker declined a stream for want of room, or because it takes none: that is no failure.
func (p *Placement) Declined(l *link.Link) {
	p.change(l, func(w *worker) {
		w.Candidate.Declined = true
		if w.declined != nil {
			w.declined.Reset(declinedFor)
			return
		}
		w.declined = time.AfterFunc(declinedFor, func() {
			p.change(l, func(w *worker) { w.Candidate.Declined = false })
		})
	})
}
