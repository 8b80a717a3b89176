package session_test

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/checkpoint/checkpointtest"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestCheckpointsTakeTurns has a session wait for others, and give back what it got, however its checkpoint ends.
func TestCheckpointsTakeTurns(t *testing.T) {
	ends := map[string]func(p *play, a *actor, capture uint64){
		"arrives": func(p *play, a *actor, capture uint64) {
			a.captured(1, capture, 3)
			p.keeper.arrive(3, nil)
		},
		"fails": func(_ *play, a *actor, capture uint64) {
			a.report(&wirepb.Captured{Session: 7, Epoch: 1, Capture: capture, Code: string(wire.CodeLimit)})
		},
		"takes long":        func(p *play, _ *actor, _ uint64) { p.wake(checkpoint.SlotTimeout) },
		"takes too long":    func(p *play, _ *actor, _ uint64) { p.wake(p.cfg.Handover.TransferTimeout) },
		"a planned swap":    func(p *play, _ *actor, _ uint64) { p.plan(handover.Plan{}) },
		"the worker's loss": func(p *play, a *actor, _ uint64) { a.Lose(link.CauseTether); p.worker("b", stateful); p.wake(0) },
		"the stream's end":  func(_ *play, a *actor, _ uint64) { a.say(ends(1, 3)) },
		"its last words, which nobody reads": func(p *play, a *actor, _ uint64) {
			p.client.Stall()
			a.say(ends(1, 3))
		},
		"the session's end": func(p *play, _ *actor, _ uint64) { p.end() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			patient := func(c *session.Config) {
				everySecond(c)
				c.Handover.TransferTimeout, c.Tokens.TokenMin = 2*checkpoint.SlotTimeout, time.Hour
				c.Checkpoint.TransferTimeout = c.Handover.TransferTimeout
			}
			inPlay(t, script{cfg: patient}, func(p *play) {
				q := &checkpointtest.Queue{Limiter: p.limiter}
				q.Ask(checkpoint.AtOnce)
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				q.Ask(1) // is behind the session
				without[*wirepb.Capture](a)
				q.Require(t, 0, 1, 2, 3)
				q.Asked[0].End()
				time.Sleep(checkpoint.MaxCooldown)
				capture := got[*wirepb.Capture](a).GetCapture()
				time.Sleep(time.Millisecond)
				q.Require(t)
				end(p, a, capture)
				time.Sleep(checkpoint.MaxCooldown)
				q.Require(t, 4)
			})
		})
	}
}

// TestSlotAtAnotherWorker has a session be granted a slot at the worker that it has left: it does not use that up for
// the one that it is on.
func TestSlotAtAnotherWorker(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		q := &checkpointtest.Queue{Limiter: p.limiter}
		q.Ask(checkpoint.AtOnce)
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		q.Ask(1)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		b.serve(2, 4, 5)
		q.Require(t, 0, 1, 2, 3)
		q.Asked[0].End()
		p.wake(checkpoint.MaxCooldown)
		q.Require(t, 4)
		got[*wirepb.Capture](b)
	})
}

// TestTurnThatComesTooLate finds the session in a planned swap, or gone.
func TestTurnThatComesTooLate(t *testing.T) {
	for name, end := range map[string]func(p *play){
		"in a planned swap": func(p *play) { p.plan(handover.Plan{}) },
		"gone":              func(p *play) { p.end() },
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{cfg: everySecond}, func(p *play) {
				q := &checkpointtest.Queue{Limiter: p.limiter}
				q.Ask(checkpoint.AtOnce)
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				q.Ask(1)
				q.Require(t, 0, 1, 2, 3)
				end(p)
				q.Asked[0].End()
				time.Sleep(checkpoint.MaxCooldown)
				q.Require(t, 4)
				without[*wirepb.Capture](a)
			})
		})
	}
}
