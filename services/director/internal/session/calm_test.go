package session_test

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestCalmStream has a worker make tokens for some time, and then none. Its owner sleeps while they come, and is there
// when the worker's time is up: not sooner, and not later. Likewise when the client stops reading.
func TestCalmStream(t *testing.T) {
	cfg := func(c *session.Config) {
		c.Tokens = stream.Timeouts{FirstToken: 30 * time.Second, TokenMin: time.Second, Factor: 4}
		c.ClientStall = 10 * time.Second
	}
	flow := func(p *play) *actor {
		a := p.worker("a")
		a.serve(1, 1, 1)
		for n := uint64(2); n <= 30; n++ {
			time.Sleep(200 * time.Millisecond)
			a.say(frames(1, n, n))
		}
		without[*wirepb.Cancel](a)
		return a
	}
	t.Run("silent worker", func(t *testing.T) {
		inPlay(t, script{cfg: cfg}, func(p *play) {
			flow(p)
			b := p.worker("b")
			time.Sleep(900 * time.Millisecond)
			without[*wirepb.Attach](b)
			time.Sleep(200 * time.Millisecond)
			if m := got[*wirepb.Attach](b); m.GetEpoch() != 2 || len(m.GetPrefix().GetLengths()) != 30 {
				t.Errorf("b was given %v", m)
			}
		})
	})
	t.Run("client that stops reading", func(t *testing.T) {
		inPlay(t, script{cfg: cfg}, func(p *play) {
			a := flow(p)
			p.client.Stall()
			a.say(frames(1, 31, 36)) // all that it may
			time.Sleep(9900 * time.Millisecond)
			without[*wirepb.Cancel](a)
			time.Sleep(400 * time.Millisecond)
			got[*wirepb.Cancel](a)
			if s := p.s.Snapshot(); s.State != session.Failed {
				t.Errorf("the stream is %s", s.State)
			}
		})
	})
}
