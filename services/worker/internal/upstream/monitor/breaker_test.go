package monitor

import (
	"testing"
	"time"
)

// TestBreaker: what an event says of attempts, half a second apart or more, and what state follows.
func TestBreaker(t *testing.T) {
	var b breaker
	now := time.Unix(1_800_000_000, 0)
	step := func(after time.Duration, what string, do func(), want string) {
		t.Helper()
		now = now.Add(after)
		do()
		if got := b.state(now); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	fail, good := func() { b.attempt(false, now) }, func() { b.attempt(true, now) }
	nothing := func() {}
	for range 20 {
		step(10*time.Millisecond, "streams that end together", fail, "closed")
	}
	for range 3 {
		step(time.Second, "failures", fail, "closed")
	}
	step(time.Second, "one that was good", good, "closed")
	for range 4 {
		step(time.Second, "failures from the beginning", fail, "closed")
	}
	step(time.Second, "the fifth in a row", fail, "open")
	step(1900*time.Millisecond, "a rest of 2 s", nothing, "open")
	step(0, "an attempt from before, that is good", good, "open")
	step(200*time.Millisecond, "its end", nothing, "half-open")
	step(0, "no token", func() { b.tried(false, now) }, "open")
	step(3900*time.Millisecond, "a rest of 4 s", nothing, "open")
	step(200*time.Millisecond, "its end", nothing, "half-open")
	step(0, "a token", func() { b.tried(true, now) }, "closed")
	for range 4 {
		step(time.Second, "failures once more", fail, "closed")
	}
	step(time.Second, "the fifth", fail, "open")
	step(7900*time.Millisecond, "a rest of 8 s: nothing was good meanwhile", nothing, "open")
	step(200*time.Millisecond, "its end", func() { b.tried(true, now); good() }, "closed")
	for range 4 {
		step(time.Second, "failures after good ones", fail, "closed")
	}
	step(time.Second, "the fifth", fail, "open")
	step(2100*time.Millisecond, "a rest of 2 s", nothing, "half-open")
}

// TestBreakerRestsNoLonger than a minute, however often.
func TestBreakerRestsNoLonger(t *testing.T) {
	var b breaker
	now := time.Unix(1_800_000_000, 0)
	for range 20 {
		b.trip(now)
		now = b.until
		b.tried(false, now)
		now = b.until
	}
	b.trip(now)
	if rest := b.until.Sub(now); rest != longRest {
		t.Errorf("rests %v", rest)
	}
}

// TestBreakerFlaps: a server that is lost again and again within a minute rests, one that is lost now and then does not.
func TestBreakerFlaps(t *testing.T) {
	for apart, want := range map[time.Duration]string{10 * time.Second: "open", 25 * time.Second: "closed"} {
		var b breaker
		now := time.Unix(1_800_000_000, 0)
		for range maxFlaps + 1 {
			now = now.Add(apart)
			b.gone(now)
		}
		if got := b.state(now); got != want {
			t.Errorf("lost every %v: %s, want %s", apart, got, want)
		}
	}
}
