package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestRateIsOfEachTarget(t *testing.T) {
	to := func(target string) Claims {
		c := claims
		c.Target = target
		return c
	}
	play(t, func(s *scene) {
		s.issuer = NewIssuer(Config{Director: want.Director, Rate: 5})
		exceeds := func(target string) {
			t.Helper()
			signed, id, err := s.issuer.Issue(to(target))
			if signed != nil || id != nil || !errors.Is(err, &wire.Error{Code: wire.CodeTokenRate}) || !strings.Contains(err.Error(), target) {
				t.Fatalf("beyond the rate of %s: %v, %v", target, signed, err)
			}
		}
		for range 5 {
			s.issue(to("worker-b"))
		}
		exceeds("worker-b")
		for i := range 1000 { // others neither suffer nor help
			s.issue(to(fmt.Sprint("worker-", i)))
		}
		exceeds("worker-b")
		time.Sleep(200 * time.Millisecond)
		s.issue(to("worker-b"))
		exceeds("worker-b")
		time.Sleep(time.Minute)
		for range 5 { // there is no saving up
			s.issue(to("worker-b"))
		}
		exceeds("worker-b")
	})
}

func TestIdleTargetsAreForgotten(t *testing.T) {
	play(t, func(s *scene) {
		s.issuer = NewIssuer(Config{Director: want.Director, Rate: 5})
		for i := range 2000 {
			c := claims
			c.Target = fmt.Sprint("worker-", i)
			s.issue(c)
			time.Sleep(50 * time.Millisecond)
			if n := len(s.issuer.pace.limiters); n > sweepLeast {
				t.Fatalf("%d limiters, with 20 targets a second", n)
			}
		}
	})
}

// TestBadClaims makes nothing that a verifier would not take, and takes nothing from the target's rate for it.
func TestBadClaims(t *testing.T) {
	play(t, func(s *scene) {
		s.issuer = NewIssuer(Config{Director: want.Director, Rate: 1})
		s.setKeys(s.issuer)
		for name, change := range map[string]func(c *Claims){
			"no purpose":  func(c *Claims) { c.Purpose = 0 },
			"new purpose": func(c *Claims) { c.Purpose = health + 1 },
			"no target":   func(c *Claims) { c.Target = "" },
			"no session":  func(c *Claims) { c.Session = 0 },
			"no way":      func(c *Claims) { c.ToEpoch = 3 },
			"way back":    func(c *Claims) { c.ToEpoch = 2 },
			"not UTF-8":   func(c *Claims) { c.Source = "\xff" },
			"huge":        func(c *Claims) { c.Source = strings.Repeat("x", maxToken) },
		} {
			c := claims
			change(&c)
			var coded *wire.Error
			if signed, id, err := s.issuer.Issue(c); signed != nil || id != nil || err == nil || errors.As(err, &coded) {
				t.Errorf("%s: %v, %v", name, signed, err)
			}
		}
		name := strings.Repeat("n", 253) // the longest that configuration lets through
		c := claims
		c.Source, c.Target, c.ConnectionID, c.FromEpoch, c.ToEpoch, c.Session = name, name, name, 1<<64-2, 1<<64-1, 1<<64-1
		s.accepts(s.issue(c), Want{Purpose: migration})
	})
}

func TestIdsDiffer(t *testing.T) {
	play(t, func(s *scene) {
		seen := map[string]bool{}
		for range 1000 {
			_, id, err := s.issuer.Issue(claims)
			if err != nil || len(id) != IDSize || seen[string(id)] {
				t.Fatal(id, err)
			}
			seen[string(id)] = true
		}
	})
}

// TestRotation follows a key: known, signing, previous, gone.
func TestRotation(t *testing.T) {
	play(t, func(s *scene) {
		rotate := func() {
			t.Helper()
			if s.issuer.Rotate() {
				t.Fatal("rotated too early")
			}
			time.Sleep(s.issuer.cfg.KeyLife)
			if !s.issuer.Rotate() || s.issuer.Rotate() {
				t.Fatal("not rotated, or twice")
			}
		}
		rotate()
		early := s.issue(claims) // comes before the new keys do
		s.accepts(early, want)
		s.setKeys(s.issuer)
		time.Sleep(settle - time.Millisecond)
		previous := s.issue(claims)
		time.Sleep(time.Millisecond)
		current := s.issue(claims)
		if string(previous.KeyId) == string(current.KeyId) {
			t.Fatal("the new key does not sign")
		}
		s.accepts(previous, want)
		s.accepts(current, want)

		time.Sleep(time.Hour - settle - time.Millisecond)
		if n := len(s.issuer.Keys().Keys); n != 2 {
			t.Fatalf("%d keys", n)
		}
		time.Sleep(time.Millisecond) // nobody calls Rotate, yet the previous one has had its time
		if keys := s.issuer.Keys().Keys; len(keys) != 1 || string(keys[0].Id) != string(current.KeyId) {
			t.Fatalf("%d keys", len(keys))
		}
		if !s.issuer.Rotate() {
			t.Fatal("not rotated")
		}
		s.setKeys(s.issuer)
		s.refuses(previous, want, wire.CodeTokenKey)    // two keys ago
		s.refuses(current, want, wire.CodeTokenExpired) // one key ago
		if keys := s.issuer.Keys().Keys; len(keys) != 2 || string(keys[1].Id) != string(current.KeyId) {
			t.Fatal("the current key is not the first, or the one before it not the second")
		}
		s.accepts(s.issue(claims), want)
	})
}

// TestEveryTokenOutlivesRotation has the shortest key life, and keys that arrive at once or as late as they may.
func TestEveryTokenOutlivesRotation(t *testing.T) {
	play(t, func(s *scene) {
		s.issuer = NewIssuer(Config{Director: want.Director, KeyLife: 1, Rate: 10})
		s.setKeys(s.issuer)
		var issued []*wirepb.SignedToken
		rotations, keysDue := 0, time.Time{}
		for second := range 300 {
			if s.issuer.Rotate() {
				keysDue = time.Now().Add(time.Duration(rotations%2) * settle)
				rotations++
			}
			if !keysDue.IsZero() && !time.Now().Before(keysDue) {
				s.setKeys(s.issuer)
				keysDue = time.Time{}
			}
			issued = append(issued, s.issue(claims))
			if second >= 29 { // in its last second
				s.accepts(issued[second-29], want)
			}
			time.Sleep(time.Second)
		}
		if rotations < 5 {
			t.Fatalf("%d rotations in five minutes", rotations)
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	issuer := NewIssuer(Config{Director: want.Director, Rate: 1 << 30})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := issuer.Issue(claims); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify has the memory as full as it is with a thousand tokens in use.
func BenchmarkVerify(b *testing.B) {
	issuer, verifier := NewIssuer(Config{Director: want.Director, Rate: 1 << 30}), NewVerifier()
	if err := verifier.SetKeys(want.Director, issuer.Keys()); err != nil {
		b.Fatal(err)
	}
	var signed []*wirepb.SignedToken
	for range 1000 {
		token, _, err := issuer.Issue(claims)
		if err != nil {
			b.Fatal(err)
		}
		signed = append(signed, token)
	}
	again := want
	again.Again = true // else each could be verified once only
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := verifier.Verify(signed[i%len(signed)], again); err != nil {
			b.Fatal(err)
		}
	}
}
