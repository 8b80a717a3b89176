package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/wire"
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
			token, err := s.issuer.Issue(to(target))
			if token != nil || !errors.Is(err, &wire.Error{Code: wire.CodeTokenRate}) || !strings.Contains(err.Error(), target) {
				t.Fatalf("beyond the rate of %s: %v, %v", target, token, err)
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
			if n := len(s.issuer.limits.limiters); n > sweepLeast {
				t.Fatalf("%d limiters, with 20 targets a second", n)
			}
		}
	})
}

// TestBadClaims makes nothing that a holder would not take, and takes nothing from the target's rate for it.
func TestBadClaims(t *testing.T) {
	play(t, func(s *scene) {
		s.issuer = NewIssuer(Config{Director: want.Director, Rate: 1})
		for name, change := range map[string]func(c *Claims){
			"no purpose":  func(c *Claims) { c.Purpose = 0 },
			"new purpose": func(c *Claims) { c.Purpose = transfer + 1 },
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
			if token, err := s.issuer.Issue(c); token != nil || err == nil || errors.As(err, &coded) {
				t.Errorf("%s: %v, %v", name, token, err)
			}
		}
		name := strings.Repeat("n", 253) // the longest that configuration lets through
		c := claims
		c.Source, c.Target, c.ConnectionID, c.FromEpoch, c.ToEpoch, c.Session = name, name, name, 1<<64-2, 1<<64-1, 1<<64-1
		s.accepts(s.give(c), Want{Purpose: migration})
	})
}

func TestSecretsDiffer(t *testing.T) {
	play(t, func(s *scene) {
		seen := map[string]bool{}
		for range 1000 {
			secret := string(s.issue(claims).GetSecret())
			if len(secret) != SecretSize || seen[secret] {
				t.Fatalf("%x", secret)
			}
			seen[secret] = true
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	issuer := NewIssuer(Config{Director: want.Director, Rate: 1 << 30})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuer.Issue(claims); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUse makes tokens, gives them to a holder, and shows them.
func BenchmarkUse(b *testing.B) {
	issuer, holder := NewIssuer(Config{Director: want.Director, Rate: 1 << 30}), NewHolder()
	grants := holder.Join(want.Director)
	grants.limit = 1 << 30
	b.ReportAllocs()
	for b.Loop() {
		token, err := issuer.Issue(claims)
		if err == nil {
			err = grants.Allow(token)
		}
		if err == nil {
			_, err = holder.Show(token.GetSecret(), want)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
