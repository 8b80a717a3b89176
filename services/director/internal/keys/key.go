package keys

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/wire"
)

// Key is one that was shown. What it may do is what the file says now, whenever it was shown. A nil Key may do everything.
// It is safe for concurrent use.
type Key struct {
	keys    *Keys
	hash    [sha256.Size]byte
	account *account
}

// account is what a name may use, and has used.
type account struct {
	mu       sync.Mutex
	entry    entry
	requests *rate.Limiter // nil for no limit
	tokens   *rate.Limiter // the same. It is in debt after a stream that took more than there was
	live     map[*Grant]struct{}
	used     Usage
	charged  time.Time // when what runs was charged last
}

// set makes what a file says count. What was used within the minute stays used.
func (a *account) set(e entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entry = e
	a.requests, a.tokens = limited(a.requests, e.requests), limited(a.tokens, e.tokens)
}

// limited returns a limiter for so much in a minute, all of which may be used at once.
func limited(before *rate.Limiter, perMinute int) *rate.Limiter {
	each := rate.Limit(float64(perMinute) / time.Minute.Seconds())
	switch {
	case perMinute == 0:
		return nil
	case before == nil:
		return rate.NewLimiter(each, perMinute)
	}
	before.SetLimit(each)
	before.SetBurst(perMinute)
	return before
}

// Name is the key's; empty for nil.
func (k *Key) Name() string {
	if k == nil {
		return ""
	}
	k.account.mu.Lock()
	defer k.account.mu.Unlock()
	return k.account.entry.name
}

// Holder is the name under which things are divided; otherwise without a key.
func (k *Key) Holder(otherwise string) string {
	if k == nil {
		return otherwise
	}
	return "key " + k.Name()
}

// Priority is that of a stream for which another one was asked for: with a key no higher than the key's, which is also what who
// asks for none gets.
func (k *Key) Priority(asked uint32) uint32 {
	if k == nil {
		return asked
	}
	k.account.mu.Lock()
	defer k.account.mu.Unlock()
	if own := k.account.entry.priority; asked == 0 || asked > own {
		return own
	}
	return asked
}

// MayStandBy reports whether requests of the key may ask for a worker that runs along, to take over at once.
func (k *Key) MayStandBy() bool {
	if k == nil {
		return true
	}
	k.account.mu.Lock()
	defer k.account.mu.Unlock()
	return k.account.entry.standby
}

// models returns those that the key may use; nil for all.
func (k *Key) models() []string {
	if k == nil {
		return nil
	}
	k.account.mu.Lock()
	defer k.account.mu.Unlock()
	return k.account.entry.models
}

// MayUse reports whether the key is good for a model under a name, which may be another one for own.
func (k *Key) MayUse(name, own string) bool {
	models := k.models()
	return models == nil || slices.Contains(models, name) || slices.Contains(models, own)
}

// Model returns the model that is meant by a name, which may be empty, as find does, or why the key cannot have it. The name may be
// another one for own, and is own where it is not; a key is good for a model under each name that it has, or under one other name of
// the model. Who may not use all models is told of no others.
func (k *Key) Model(name, own string, find func(own string) (string, error)) (string, error) {
	models := k.models()
	if models == nil {
		return find(own)
	}
	named := fmt.Sprintf("the model %q", wire.Text(name))
	if name == "" {
		named = "the model that is meant where none is named"
	} else if !slices.Contains(models, name) && !slices.Contains(models, own) {
		return "", k.forbidden(named, models)
	}
	model, err := find(own)
	switch {
	case err == nil && name == "" && !slices.Contains(models, model):
		return "", k.forbidden(named, models)
	case err != nil && wire.AsError(err, wire.CodeInternal).Code == wire.CodeModel:
		return "", wire.Errorf(wire.CodeModel, "no worker has %s at present", named)
	}
	return model, err
}

func (k *Key) forbidden(named string, models []string) error {
	return wire.Errorf(wire.CodeForbidden, "the key %s may not use %s; it may use %s", k.Name(), named, strings.Join(models, ", "))
}

// Refusal says that a key has used up what it may use, and when there is more.
type Refusal struct {
	Err   *wire.Error
	After time.Duration
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns what crosses the wire.
func (r *Refusal) Unwrap() error { return r.Err }

// refused returns a Refusal because of a limit.
func (a *account) refused(after time.Duration, most int, what, field string) error {
	return &Refusal{
		wire.Errorf(wire.CodeLimit, "the key %s may have %d %s (%s), and has used that up; try again in %v", a.entry.name, most, what, field, after),
		after,
	}
}

// streamsAfter is when one may ask again who has as many streams as he may have: when one of them ends nobody knows.
const streamsAfter = time.Second

// Admit counts a request, or returns why it may not be made: the key is out, or a *Refusal. Whoever is let in is so however much
// the stream is going to take; what was more than there was has to come back before the next one. The grant is nil without a key.
func (k *Key) Admit() (*Grant, error) {
	if k == nil {
		return nil, nil
	}
	if !slices.Contains(*k.keys.known.Load(), credential{k.hash, k.account}) {
		return nil, wire.Errorf(wire.CodeUnauthorized, "the key %s is not good any more", k.Name())
	}
	a := k.account
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.charge(now)
	if most := a.entry.streams; most > 0 && len(a.live) >= most {
		return nil, a.refused(streamsAfter, most, "streams at once", "max_streams")
	}
	if after := wait(a.tokens, now); after > 0 {
		return nil, a.refused(after, a.entry.tokens, "tokens a minute", "tokens_per_minute")
	}
	if after := wait(a.requests, now); after > 0 {
		return nil, a.refused(after, a.entry.requests, "requests a minute", "requests_per_minute")
	}
	spend(a.requests, now, 1)
	a.used.Requests++
	g := &Grant{account: a, meter: func() (uint64, uint64) { return 0, 0 }}
	a.live[g] = struct{}{}
	return g, nil
}

// wait returns how long it takes until there is one again.
func wait(l *rate.Limiter, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	const whole = 1 - 1e-6 // of one: what comes back is a fraction of a fraction
	left := l.TokensAt(now)
	if left >= whole {
		return 0
	}
	return roundUp((1 - left) / float64(l.Limit()))
}

// roundUp returns so many seconds, in whole milliseconds.
func roundUp(seconds float64) time.Duration {
	return time.Duration(math.Ceil(seconds*1000-1e-6)) * time.Millisecond
}

// spend takes n from a limiter, whether there is as much or not.
func spend(l *rate.Limiter, now time.Time, n uint64) {
	if l == nil {
		return
	}
	for most := uint64(l.Burst()); n > 0; n -= min(n, most) {
		l.ReserveN(now, int(min(n, most)))
	}
}

// Grant is a request that was let in. All of it works for nil.
type Grant struct {
	account            *account
	meter              func() (prompt, completion uint64)
	prompt, completion uint64 // charged so far
}

// Meter says where to look for what the request has taken so far, in tokens.
func (g *Grant) Meter(read func() (prompt, completion uint64)) {
	if g == nil {
		return
	}
	g.account.mu.Lock()
	defer g.account.mu.Unlock()
	g.meter = read
}

// Close says that the request is over. What it took by then is charged.
func (g *Grant) Close() {
	if g == nil {
		return
	}
	a := g.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read(g, time.Now())
	delete(a.live, g)
}

// chargeEvery is how often at most all that runs is looked at.
const chargeEvery = 100 * time.Millisecond

// charge charges what runs, as far as it has got. a.mu is held.
func (a *account) charge(now time.Time) {
	if now.Sub(a.charged) < chargeEvery {
		return
	}
	a.charged = now
	for g := range a.live {
		a.read(g, now)
	}
}

// read charges what a request has taken since it was read last. a.mu is held.
func (a *account) read(g *Grant, now time.Time) {
	prompt, completion := g.meter()
	prompt, completion = max(prompt, g.prompt), max(completion, g.completion) // who counts otherwise at the end gets nothing back
	more := prompt - g.prompt + completion - g.completion
	a.used.PromptTokens += prompt - g.prompt
	a.used.CompletionTokens += completion - g.completion
	g.prompt, g.completion = prompt, completion
	spend(a.tokens, now, more)
}

// total returns what was used so far.
func (a *account) total() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.charge(time.Now())
	used := a.used
	used.Name = a.entry.name
	return used
}

// Limit is how a limit on what a minute brings stands.
type Limit struct {
	Of    string // requests or tokens
	Most  int
	Left  int
	Reset time.Duration // until all of it is there again
}

// Limits returns those that the key has.
func (k *Key) Limits() (all []Limit) {
	if k == nil {
		return nil
	}
	a := k.account
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.charge(now)
	for _, l := range []struct {
		of string
		*rate.Limiter
	}{{"requests", a.requests}, {"tokens", a.tokens}} {
		if l.Limiter != nil {
			left, most := l.TokensAt(now), l.Burst()
			all = append(all, Limit{l.of, most, int(max(0, left+1e-6)), roundUp((float64(most) - left) / float64(l.Limit()))})
		}
	}
	return all
}

var _ fmt.Stringer = (*Key)(nil)

// String is the key's name: what is shown of a key is never more.
func (k *Key) String() string { return k.Name() }
