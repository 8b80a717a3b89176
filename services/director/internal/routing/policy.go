package routing

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Names of the policies: how one of several equally sound workers is chosen.
const (
	RoundRobin  = "round_robin"  // in turn
	LeastLoaded = "least_loaded" // the emptiest, by its capacity
	P2C         = "p2c"          // of two at random, the one with the lower load times time between tokens; errors are penalised
)

// Policies lists the names; the first is the default.
var Policies = []string{RoundRobin, LeastLoaded, P2C}

// policy chooses one of the candidates with the given indexes, of which there is one at least.
type policy interface {
	choose(all []*Candidate, from []int) int
}

// Router chooses workers by a policy. It is not safe for concurrent use: its owner has a lock.
type Router struct {
	policy    policy
	shortlist []int
	choices   uint64
	examined  uint64
}

// New returns the Router of a policy's name. Its random choices come from random.
func New(name string, random rand.Source) (*Router, error) {
	switch name {
	case RoundRobin:
		return &Router{policy: roundRobin{}}, nil
	case LeastLoaded:
		return &Router{policy: leastLoaded{}}, nil
	case P2C:
		return &Router{policy: p2c{rand.New(random)}}, nil
	}
	return nil, fmt.Errorf("unknown routing policy %q; choose one of %v", name, Policies)
}

// Pick returns the index of the worker that a stream goes to, or -1 if none fits: it is one of the best ranked.
func (r *Router) Pick(n Need, all []*Candidate) int {
	r.shortlist = r.shortlist[:0]
	var best Rank
	for i := range all {
		if r.Fit(n, all[i]) != "" {
			continue
		}
		rank := RankOf(n, all[i])
		switch order := rank.Compare(best); {
		case len(r.shortlist) == 0 || order < 0:
			best, r.shortlist = rank, append(r.shortlist[:0], i)
		case order == 0:
			r.shortlist = append(r.shortlist, i)
		}
	}
	if len(r.shortlist) == 0 {
		return -1
	}
	i := r.policy.choose(all, r.shortlist)
	r.choices++
	all[i].chosen = r.choices
	return i
}

// NewLatency returns what a worker's times between tokens are to be observed with; nil if the policy does not ask for
// them.
func (r *Router) NewLatency() *Latency {
	if _, ok := r.policy.(p2c); ok {
		return &Latency{}
	}
	return nil
}

// Fit is Fit, and counts.
func (r *Router) Fit(n Need, c *Candidate) Reason {
	r.examined++
	return Fit(n, c)
}

// Unschedulable is Unschedulable, and counts.
func (r *Router) Unschedulable(n Need, all []*Candidate) Reason {
	r.examined += uint64(len(all))
	return Unschedulable(n, all)
}

// Examined is how often a worker has been looked at so far: the work of routing.
func (r *Router) Examined() uint64 { return r.examined }

// roundRobin takes the workers in turn: the one that was not chosen for longest, so that streams of different needs do
// not upset each other's turns.
type roundRobin struct{}

func (roundRobin) choose(all []*Candidate, from []int) int {
	return slices.MinFunc(from, func(i, j int) int { return cmp.Compare(all[i].chosen, all[j].chosen) })
}

// leastLoaded takes the emptiest; of equally empty ones in turn.
type leastLoaded struct{}

func (leastLoaded) choose(all []*Candidate, from []int) int {
	return slices.MinFunc(from, func(i, j int) int {
		return cmp.Or(cmp.Compare(all[i].load(), all[j].load()), cmp.Compare(all[i].chosen, all[j].chosen))
	})
}

// load is how full a worker is with one stream more, as a fraction.
func (c *Candidate) load() float64 { return float64(c.Granted+c.Foreign+1) / float64(c.Capacity) }

// p2c takes the better of two at random. That needs no full view, and sends no herd to whoever looks best for a moment.
type p2c struct{ random *rand.Rand }

func (p p2c) choose(all []*Candidate, from []int) int {
	if len(from) == 1 {
		return from[0]
	}
	i := p.random.IntN(len(from))
	j := p.random.IntN(len(from) - 1)
	if j >= i {
		j++
	}
	a, b := from[i], from[j]
	if better(all[b], all[a], time.Now()) {
		return b
	}
	return a
}

// errorPenalty is how many times dearer a worker is whose attempts all fail. Failing is fast: without it, failing would
// be rewarded.
const errorPenalty = 10

// better compares load, time between tokens and errors. A time that is not known of both says nothing.
func better(a, b *Candidate, now time.Time) bool {
	x, y := a.load()*(1+errorPenalty*a.Errors), b.load()*(1+errorPenalty*b.Errors)
	if s, t := a.Latency.Value(now), b.Latency.Value(now); s > 0 && t > 0 {
		x, y = x*s, y*t
	}
	return x < y
}
