package session

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// queue are turns that were asked for, by number.
type queue struct {
	turns *Turns
	asked []*Turn

	mu   sync.Mutex
	came []int
}

func (q *queue) ask(n int) {
	for range n {
		number := len(q.asked)
		q.asked = append(q.asked, q.turns.Ask("a", func(*Turn) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.came = append(q.came, number)
		}))
	}
}

// require compares which came since the last time.
func (q *queue) require(t *testing.T, want ...int) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.came, want) {
		t.Errorf("came: %v, want %v", q.came, want)
	}
	q.came = nil
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{turns: NewTurns()}
		q.ask(checkpointsAtOnce + 4)
		q.require(t, 0, 1, 2, 3)
		if c := q.turns.Counts(); c.Waiting != 4 {
			t.Errorf("%d wait", c.Waiting)
		}
		elsewhere := false
		q.turns.Ask("b", func(*Turn) { elsewhere = true }).End()
		if !elsewhere {
			t.Error("one worker's sessions wait for those of another")
		}
		time.Sleep(time.Second)
		q.require(t)
		q.asked[4].End() // it does not want it any more
		q.asked[1].End()
		time.Sleep(restFactor*time.Second - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 5)
		q.asked[1].End() // has no effect again
		q.asked[4].End()
		q.asked[5].End() // took no time
		q.require(t, 6)
		time.Sleep(time.Hour)
		q.asked[6].End()
		time.Sleep(longestRest - 1)
		q.require(t)
		time.Sleep(time.Nanosecond)
		q.require(t, 7)
		q.ask(1)
		q.require(t) // 0, 2, 3 and 7 have them
		for _, turn := range q.asked {
			turn.End()
		}
		time.Sleep(longestRest)
		q.require(t, 8) // 7 took no time
		if len(q.turns.at) != 0 {
			t.Errorf("left over: %v", q.turns.at)
		}
	})
}

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
		"takes long":        func(p *play, _ *actor, _ uint64) { p.wake(longestTurn) },
		"takes too long":    func(p *play, _ *actor, _ uint64) { p.wake(p.s.cfg.TransferTimeout) },
		"a planned swap":    func(p *play, _ *actor, _ uint64) { p.plan(Plan{}) },
		"the worker's loss": func(p *play, a *actor, _ uint64) { a.Lose(link.CauseTether); p.worker("b", stateful); p.wake(0) },
		"the stream's end":  func(_ *play, a *actor, _ uint64) { a.say(ends(1, 3)) },
		"its last words, which nobody reads": func(p *play, a *actor, _ uint64) {
			p.s.mu.Lock()
			p.client.full, p.client.unblock, p.client.cancelled = true, make(chan struct{}), make(chan struct{})
			p.s.mu.Unlock()
			a.say(ends(1, 3))
		},
		"the session's end": func(p *play, _ *actor, _ uint64) { p.end() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			patient := func(c *Config) {
				everySecond(c)
				c.TransferTimeout, c.TokenTimeoutMin = 2*longestTurn, time.Hour
			}
			inPlay(t, script{cfg: patient}, func(p *play) {
				q := &queue{turns: p.s.deps.Turns}
				q.ask(checkpointsAtOnce)
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				q.ask(1) // is behind the session
				without[*wirepb.Capture](a)
				q.require(t, 0, 1, 2, 3)
				q.asked[0].End()
				time.Sleep(longestRest)
				capture := got[*wirepb.Capture](a).GetCapture()
				time.Sleep(time.Millisecond)
				q.require(t)
				end(p, a, capture)
				time.Sleep(longestRest)
				q.require(t, 4)
			})
		})
	}
}

// TestTurnAtAnotherWorker has a session's turn come at the worker that it has left: it does not use that up for the one
// that it is on.
func TestTurnAtAnotherWorker(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		q := &queue{turns: p.s.deps.Turns}
		q.ask(checkpointsAtOnce)
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		q.ask(1)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		b.serve(2, 4, 5)
		q.require(t, 0, 1, 2, 3)
		q.asked[0].End()
		p.wake(longestRest)
		q.require(t, 4)
		got[*wirepb.Capture](b)
	})
}

// TestTurnThatComesTooLate finds the session in a planned swap, or gone.
func TestTurnThatComesTooLate(t *testing.T) {
	for name, end := range map[string]func(p *play){
		"in a planned swap": func(p *play) { p.plan(Plan{}) },
		"gone":              func(p *play) { p.end() },
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{cfg: everySecond}, func(p *play) {
				q := &queue{turns: p.s.deps.Turns}
				q.ask(checkpointsAtOnce)
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				q.ask(1)
				q.require(t, 0, 1, 2, 3)
				end(p)
				q.asked[0].End()
				time.Sleep(longestRest)
				q.require(t, 4)
				without[*wirepb.Capture](a)
			})
		})
	}
}
