package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/config"
)

// TestRebinding: a NAT between client and director forgets the client, again and again, at other moments of the rhythm. The
// text has no seam, the connection stays the same one, and the reader waits for less than a keep-alive.
func TestRebinding(t *testing.T) {
	for interval, most := range map[time.Duration]time.Duration{
		20 * time.Millisecond:  500 * time.Millisecond,
		200 * time.Millisecond: 1200 * time.Millisecond,
	} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			pace := func(cfg *config.Worker) { cfg.TokenInterval = interval }
			s := setup{worker: pace}
			s.net.Path.Delay = 15 * time.Millisecond
			stage(t, s, func(t *testing.T, s *scenario) {
				const tokens = 300
				undisturbed := s.generate(tokens, nil)
				before, err := s.conn.Proof()
				if err != nil {
					t.Fatal(err)
				}
				var longest time.Duration
				last := time.Now()
				got := s.generate(tokens, func(sequence uint64, _ string) {
					if sequence > 1 {
						longest = max(longest, time.Since(last))
					}
					last = time.Now()
					if sequence%61 == 60 {
						time.AfterFunc(interval*time.Duration(sequence)/tokens, s.net.Host("client").Rebind)
					}
				})
				t.Logf("the longest pause is %v", longest)
				if got.err != nil || got.text != undisturbed.text || len(got.swaps) > 0 {
					t.Errorf("%d tokens, swaps %v: %v", got.tokens, got.swaps, got.err)
				}
				if longest > most {
					t.Errorf("the reader waited for %v", longest)
				}
				if after, err := s.conn.Proof(); err != nil || after != before {
					t.Errorf("the connection changed from %v to %v: %v", before, after, err)
				}
				if err := s.sameAtDirector(s.conn.ID(), before); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
