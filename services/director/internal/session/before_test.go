package session

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// until brings a planned swap from a to b into a state. The source has made four tokens by then, and the target is
// given epoch 2.
func (p *play) until(state migration.State) (a, b *actor) {
	p.Helper()
	a = p.worker("a", stateful)
	a.serve(1, 1, 4)
	p.told("on a 1 2 3 4")
	p.plan(Plan{Cause: "operator", Confirm: state == migration.WaitingConfirmation})
	if state != migration.Initiating {
		b = p.worker("b", stateful)
	}
	for _, step := range []struct {
		state migration.State
		then  func()
	}{
		{migration.Preparing, func() { got[*wirepb.Attach](b); b.prepared(2, 4) }},
		{migration.CapturingState, func() {
			a.report(&wirepb.Captured{Session: 7, Epoch: 1, Capture: got[*wirepb.Capture](a).GetCapture(), Sequence: 4})
		}},
		{migration.TransferringState, func() { b.prepared(2, got[*wirepb.Fetch](b).GetSequence()) }},
	} {
		if state > step.state {
			p.state(step.state)
			step.then()
		}
	}
	p.state(state)
	return a, b
}

var beforeTheCut = []migration.State{
	migration.Initiating, migration.WaitingConfirmation, migration.Preparing, migration.CapturingState,
	migration.TransferringState, migration.Pivoting,
}

// TestDisturbedBeforeTheCut disturbs a planned swap in each state in which the source still serves the stream: whatever
// happens, the client does not know.
func TestDisturbedBeforeTheCut(t *testing.T) {
	for name, c := range map[string]struct {
		disturb func(p *play, a, b *actor)
		reason  string
	}{
		"target lost":     {func(_ *play, _, b *actor) { b.Lose(link.CauseTether) }, string(link.CauseTether)},
		"target declines": {func(_ *play, _, b *actor) { b.refuse(wire.CodeCapacity) }, "capacity: no"},
		"token too old":   {func(_ *play, _, b *actor) { b.refuse(wire.CodeTokenExpired) }, "token_expired: no"},
		"target fails": {func(_ *play, _, b *actor) {
			b.say(wire.Append(nil, &wirepb.Fail{Session: 7, Epoch: 2, Code: string(wire.CodeDiverged), Message: "no"}))
		}, "diverged: no"},
		"target ends": {func(_ *play, _, b *actor) { b.say(ends(2, 4)) }, "the target ended the stream before it had it"},
		"veto":        {func(p *play, _, _ *actor) { p.decide(false, "not today", "") }, "not today"},
		"rollback":    {func(p *play, _, _ *actor) { p.rollBack("changed my mind") }, "changed my mind"},
	} {
		for _, state := range beforeTheCut {
			asked := state > migration.WaitingConfirmation // before, the target has nothing to say of the stream
			if state == migration.Initiating && strings.HasPrefix(name, "t") || !asked && strings.HasPrefix(name, "t") && name != "target lost" {
				continue
			}
			t.Run(fmt.Sprintf("%s in %s", name, state), func(t *testing.T) {
				inPlay(t, script{}, func(p *play) {
					a, b := p.until(state)
					c.disturb(p, a, b)
					r := p.outcome()
					if r.State != migration.Aborted.String() || r.Reason != c.reason || r.Epoch != 2 {
						t.Errorf("the swap ended as %+v", r)
					}
					if s := p.s.Snapshot(); s.State != Streaming || s.Epoch != 1 || p.s.Worker() != "a" || p.s.Swap() != nil {
						t.Errorf("the stream is %+v", s)
					}
					if b != nil {
						released(p, b)
					}
					a.say(frames(1, 5, 9))
					time.Sleep(20 * time.Second) // no part of the swap comes after it
					a.say(frames(1, 10, 10), ends(1, 10))
					p.told("5 6 7 8 9 10 done")
				})
			})
		}
	}
}

func (a *actor) refuse(code wire.Code) {
	a.play.Helper()
	a.report(&wirepb.Refused{Session: 7, Epoch: 2, Code: string(code), Message: "no"})
}

// released fails unless the target has been told to let go, if it still can be, and has no part of the session.
func released(p *play, target *actor) {
	p.Helper()
	workers, _ := p.pool.Workers()
	for _, w := range workers {
		if w.Worker != target.Worker() {
			continue
		}
		if c := got[*wirepb.Cancel](target); c.GetEpoch() != 2 || w.Sessions != 0 || w.Incoming != 0 {
			p.Errorf("the target is %+v, and was sent %v", w, c)
		}
		if r := got[*wirepb.Revoke](target); r.GetEpoch() != 2 {
			p.Errorf("the target was sent %v", r)
		}
	}
}

// TestSourceLostBeforeTheCut loses the source in each of these states: the session fails over as if nothing had been
// planned.
func TestSourceLostBeforeTheCut(t *testing.T) {
	for _, state := range beforeTheCut {
		t.Run(state.String(), func(t *testing.T) {
			inPlay(t, script{}, func(p *play) {
				a, b := p.until(state)
				a.Lose(link.CauseTether)
				if r := p.outcome(); r.State != migration.Failed.String() || r.Reason != string(link.CauseTether) {
					t.Errorf("the swap ended as %+v", r)
				}
				if b == nil {
					b = p.worker("b", stateful)
				} else {
					got[*wirepb.Cancel](b)
				}
				b.serve(3, 5, 6)
				time.Sleep(500 * time.Millisecond)
				b.say(frames(3, 7, 7))
				if state == migration.Initiating {
					p.told("waits (failover a→b in 3) 5 6 7")
				} else {
					p.told("(failover a→b in 3) 5 6 7")
				}
				time.Sleep(500 * time.Millisecond)
				without[*wirepb.Pivot](b)
				b.say(frames(3, 8, 8), ends(3, 8))
				p.told("8 done")
				if len(p.over) != 2 || p.over[1].Kind != "failover" || p.over[1].State != "Completed" {
					t.Errorf("swaps: %+v", p.over)
				}
			})
		})
	}
}

// TestEndBeforeTheCut ends the stream while it was to be moved.
func TestEndBeforeTheCut(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(p *play, a *actor)
		told  string
		state State
	}{
		"completed":   {func(_ *play, a *actor) { a.say(frames(1, 5, 5), ends(1, 5)) }, "5 done", Done},
		"client gone": {func(p *play, _ *actor) { p.s.inbox.put(clientGone{}) }, "", Cancelled},
		"shutdown":    {func(p *play, _ *actor) { p.end() }, "", Cancelled},
		"no engine": {func(_ *play, a *actor) {
			a.say(wire.Append(nil, &wirepb.Fail{Session: 7, Epoch: 1, Code: string(wire.CodeInvalid)}))
		}, "error invalid_request", Failed},
	} {
		for _, state := range beforeTheCut {
			if name == "completed" && state == migration.Pivoting {
				continue // the last token makes the cut: see TestNothingIsLeftForTheTarget
			}
			t.Run(fmt.Sprintf("%s in %s", name, state), func(t *testing.T) {
				inPlay(t, script{}, func(p *play) {
					a, b := p.until(state)
					c.end(p, a)
					if r := p.outcome(); r.State != migration.Aborted.String() || r.Reason != "the stream has ended" {
						t.Errorf("the swap ended as %+v", r)
					}
					p.told(c.told)
					if s := p.s.State(); s != c.state {
						t.Errorf("the session is %s", s)
					}
					if got[*wirepb.Cancel](a); b != nil {
						released(p, b)
					}
				})
			})
		}
	}
}

// TestTimeouts lets a planned swap wait in each state for longer than it may: the source goes on.
func TestTimeouts(t *testing.T) {
	for state, c := range map[migration.State]struct {
		wait   time.Duration
		reason string
	}{
		migration.Initiating:          {time.Minute, "no worker had room in time"},
		migration.WaitingConfirmation: {time.Minute, "no operator confirmed it in time"},
		migration.Preparing:           {2 * time.Second, "the target did not open the stream in time"},
		migration.CapturingState:      {10 * time.Second, "the source did not capture the state in time"},
		migration.TransferringState:   {10 * time.Second, "the target did not get the state in time"},
	} {
		t.Run(state.String(), func(t *testing.T) {
			inPlay(t, script{}, func(p *play) {
				a, _ := p.until(state)
				for n, left := uint64(5), c.wait-time.Second; left > 0; n, left = n+1, left-time.Second {
					time.Sleep(time.Second)
					a.say(frames(1, n, n))
				}
				p.state(state)
				time.Sleep(1100 * time.Millisecond)
				if r := p.outcome(); r.State != migration.Aborted.String() || r.Reason != c.reason {
					t.Errorf("the swap ended as %+v", r)
				}
			})
		})
	}
}
