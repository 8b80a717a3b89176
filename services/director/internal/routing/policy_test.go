package routing_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/routing"
)

func router(t *testing.T, name string) *routing.Router {
	t.Helper()
	r, err := routing.New(name, rand.NewPCG(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// workers have the given capacities.
func workers(capacities ...int) []*routing.Candidate {
	var all []*routing.Candidate
	for _, capacity := range capacities {
		all = append(all, ready(func(c *routing.Candidate) { c.Capacity = capacity }))
	}
	return all
}

// place gives away n places and returns who got them, in order.
func place(r *routing.Router, all []*routing.Candidate, n int) string {
	var got []string
	for range n {
		i := r.Pick(routing.Need{}, all)
		got = append(got, fmt.Sprint(i))
		if i >= 0 {
			all[i].Granted++
		}
	}
	return strings.Join(got, " ")
}

func TestUnknownPolicy(t *testing.T) {
	if _, err := routing.New("random", nil); err == nil || !strings.Contains(err.Error(), "round_robin least_loaded p2c") {
		t.Errorf("got %v", err)
	}
}

func TestRoundRobin(t *testing.T) {
	if got := place(router(t, routing.RoundRobin), workers(3, 1, 2), 7); got != "0 1 2 0 2 0 -1" {
		t.Errorf("got %s", got)
	}
}

// TestRoundRobinOfTwoEngines has streams of two engines take turns: each engine's workers share its streams all the
// same.
func TestRoundRobinOfTwoEngines(t *testing.T) {
	all := workers(100, 100, 100, 100)
	all[1].Models, all[2].Models = of("y"), of("y")
	r := router(t, routing.RoundRobin)
	for range 10 {
		for _, engine := range []string{"x", "y"} {
			all[r.Pick(routing.Need{Fingerprint: engine}, all)].Granted++
		}
	}
	for i, c := range all {
		if c.Granted != 5 {
			t.Errorf("worker %d got %d of 20", i, c.Granted)
		}
	}
}

func TestLeastLoaded(t *testing.T) {
	all := workers(10, 20)
	r := router(t, routing.LeastLoaded)
	if got := place(r, all, 6); got != "1 0 1 1 0 1" {
		t.Errorf("got %s", got)
	}
	all[0].Foreign = 5 // another director's
	if got := place(r, all, 6); got != "1 1 1 1 1 1" {
		t.Errorf("with another director's streams on the first: %s", got)
	}
}

// share returns how many of 1,000 streams the first worker gets, if none of them stays.
func share(t *testing.T, all []*routing.Candidate) int {
	t.Helper()
	r, n := router(t, routing.P2C), 0
	for range 1000 {
		if r.Pick(routing.Need{}, all) == 0 {
			n++
		}
	}
	return n
}

// TestP2C chooses among four workers: the best one gets those of whose two it is one, the worst one none.
func TestP2C(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(d time.Duration) func(*routing.Candidate) {
			return func(c *routing.Candidate) {
				c.Latency = &routing.Latency{}
				c.Latency.Observe(d, time.Now())
			}
		}
		for name, c := range map[string]struct {
			first      func(*routing.Candidate)
			rest       func(*routing.Candidate)
			least, max int
		}{
			"half of all pairs has the emptiest": {func(*routing.Candidate) {}, func(c *routing.Candidate) { c.Granted = 1 }, 430, 570},
			"the fullest loses to all":           {func(c *routing.Candidate) { c.Granted = 1 }, func(*routing.Candidate) {}, 0, 0},
			"the slowest":                        {slow(time.Second), slow(100 * time.Millisecond), 0, 0},
			"the fastest":                        {slow(10 * time.Millisecond), slow(100 * time.Millisecond), 430, 570},
			"fast, since it fails": {
				func(c *routing.Candidate) { slow(50 * time.Millisecond)(c); c.Errors = 0.5 }, slow(100 * time.Millisecond), 0, 0,
			},
			"an unknown time says nothing": {func(*routing.Candidate) {}, slow(time.Millisecond), 150, 350},
		} {
			all := workers(9, 9, 9, 9)
			for i, one := range all {
				if i == 0 {
					c.first(one)
				} else {
					c.rest(one)
				}
			}
			if n := share(t, all); n < c.least || n > c.max {
				t.Errorf("%s: %d of 1000, expected %d to %d", name, n, c.least, c.max)
			}
		}
		if got := share(t, workers(1)); got != 1000 {
			t.Errorf("the only one: %d", got)
		}
	})
}

// TestLatency follows a rise at once and a fall slowly, and forgets.
func TestLatency(t *testing.T) {
	var l routing.Latency
	now := time.Unix(1, 0)
	if v := l.Value(now); v != 0 {
		t.Errorf("nothing measured: %v", v)
	}
	if v := (*routing.Latency)(nil).Value(now); v != 0 {
		t.Errorf("not measured at all: %v", v)
	}
	l.Observe(100*time.Millisecond, now)
	l.Observe(time.Second, now)
	if v := l.Value(now); v != 1 {
		t.Errorf("after a peak of a second: %v", v)
	}
	for range 10 { // one memory
		now = now.Add(time.Second)
		l.Observe(100*time.Millisecond, now)
	}
	if v := l.Value(now); v < 0.41 || v > 0.45 { // 0.1 + 0.9/e
		t.Errorf("ten seconds after the peak: %v", v)
	}
	if v := l.Value(now.Add(time.Minute)); v > 0.01 {
		t.Errorf("a minute without a token later: %v", v)
	}
}
