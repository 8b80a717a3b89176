package placement

import (
	"maps"
	"math/rand/v2"
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
	// unanswered is the same of a worker that has: so many attempts without an outcome, begun since one made progress,
	// are a silence.
	unanswered = 8
	// A cooldown doubles with each failed probe, between these bounds. Half of each is random, so that workers of one
	// bad roll-out are not probed at the same moment.
	firstCooldown = time.Second
	lastCooldown  = time.Minute
	// errorWeight is the weight of the newest attempt in the fraction of those that fail.
	errorWeight = 0.125
)

// breaker is guarded by Placement.mu. What routing has to know of it is in worker.Candidate: Proven, Cooling, Trial,
// Failures, Unanswered, Errors.
type breaker struct {
	trials    int         // places whose attempts have neither made progress nor failed; planned handovers do not count
	successes uint64      // attempts that made progress so far
	failed    uint64      // session whose attempt failed last
	cooldowns int         // in a row
	cooldown  *time.Timer // runs while the worker is Cooling,
	warmAt    time.Time   // until then
	declined  *time.Timer // runs while it is Declined
}

// stop ends the timers of a worker that is taken out.
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
	switch {
	case w.halfOpen():
		w.Trial = w.trials >= 1
	case !w.Proven:
		w.Trial = w.trials >= onTrial
	default:
		w.Trial = w.Unanswered >= unanswered
	}
}

// cooldowns is what becomes of workers by how their attempts go. It is guarded by Placement.mu.
type cooldowns struct {
	log      *zap.Logger
	random   *rand.Rand         // for jitter
	suspects map[string]suspect // by label
	over     func(w *worker)    // called by a timer when w's cooldown is over
}

// suspect is what is remembered of a worker that died in cooldown, or under the first streams that it was given: a
// crash loop must not cost streams in every round.
type suspect struct {
	cooldowns, failures int
	warmAt, until       time.Time
}

// succeeded counts a success, and reports whether the worker is the better for it.
func (c *cooldowns) succeeded(w *worker) (improved bool) {
	w.Errors *= 1 - errorWeight
	w.successes++
	w.Unanswered = 0
	w.judge()
	if w.Proven && w.Failures == 0 {
		return false
	}
	if w.cooldowns > 0 {
		c.log.Info("worker is trusted again", zap.String("worker", w.Label))
	}
	w.stopCooldown()
	w.Proven, w.Failures, w.cooldowns = true, 0, 0
	w.judge()
	return true
}

// failed counts a failure, and begins a cooldown if there were too many. The failures of one stream in a row count once
// at a worker that has proved itself: it may be the stream's fault.
func (c *cooldowns) failed(w *worker, session uint64) {
	w.Errors += errorWeight * (1 - w.Errors)
	if w.Proven && w.Failures > 0 && w.failed == session {
		return
	}
	w.Failures++
	w.failed = session
	if !w.Cooling && (!w.Proven || w.Failures >= tolerated) {
		c.begin(w)
	}
}

// begin begins a cooldown.
func (c *cooldowns) begin(w *worker) {
	d := min(firstCooldown<<min(w.cooldowns, 10), lastCooldown)
	d = d/2 + time.Duration(c.random.Int64N(int64(d/2)))
	w.cooldowns++
	c.cool(w, d)
	c.log.Warn("worker gets no streams for a while: its attempts fail",
		zap.String("worker", w.Label), zap.Int("failures", w.Failures), zap.Duration("cooldown", d))
}

// cool begins a cooldown of that length, or goes on with one.
func (c *cooldowns) cool(w *worker, d time.Duration) {
	w.Proven, w.Cooling, w.warmAt = false, true, time.Now().Add(d)
	w.cooldown = time.AfterFunc(d, func() { c.over(w) })
}

// lost remembers a worker whose link is lost, if there is a reason. Who has not come back for long is forgotten.
func (c *cooldowns) lost(w *worker, cause link.Cause) {
	if !w.Proven && !w.Cooling && w.trials > 0 && cause.Deadly() {
		w.Failures++
		c.begin(w)
	}
	now := time.Now()
	maps.DeleteFunc(c.suspects, func(_ string, s suspect) bool { return now.After(s.until) })
	if w.cooldowns > 0 {
		c.suspects[w.Label] = suspect{w.cooldowns, w.Failures, w.warmAt, now.Add(2 * lastCooldown)}
	}
}

// goOn goes on with the cooldown that a worker was in when its link was lost.
func (c *cooldowns) goOn(w *worker) {
	s, known := c.suspects[w.Label]
	if !known || time.Now().After(s.until) {
		return
	}
	delete(c.suspects, w.Label)
	w.cooldowns, w.Failures = s.cooldowns, s.failures
	if d := time.Until(s.warmAt); d > 0 {
		c.cool(w, d)
	}
}

func (w *worker) stopCooldown() {
	if w.cooldown != nil {
		w.cooldown.Stop()
	}
	w.Cooling = false
}
