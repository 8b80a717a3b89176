package session_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// wake has the owner look at the time.
func (p *play) wake(after time.Duration) {
	time.Sleep(after + 2*clock.Tick)
	p.client.Wake()
	synctest.Wait()
}

// captured has the worker answer that it has a snapshot.
func (a *actor) captured(epoch, capture, sequence uint64) {
	a.play.Helper()
	a.report(&wirepb.Captured{Session: 7, Epoch: epoch, Capture: capture, Sequence: sequence})
}

func everySecond(c *session.Config) { c.Checkpoint.Interval = time.Second }

// checkpoint has a checkpoint of worker a taken after a token.
func (p *play) checkpoint(a *actor, epoch, sequence uint64) {
	p.Helper()
	p.wake(time.Second)
	a.captured(epoch, got[*wirepb.Capture](a).GetCapture(), sequence)
	p.keeper.arrive(sequence, nil)
}

func TestCheckpoints(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		capture := got[*wirepb.Capture](a)
		if capture.GetEpoch() != 1 || capture.GetKeepMs() != 10_000 {
			t.Errorf("capture: %v", capture)
		}
		a.captured(1, capture.GetCapture(), 3)
		from := p.keeper.fetches[0]
		if from.GetSession() != 7 || from.GetAddr() != "a:63001" || from.GetSequence() != 3 || from.GetToken() == nil {
			t.Errorf("fetched: %v", from)
		}
		a.allows(from.GetToken().GetSecret(), wirepb.Purpose_PURPOSE_STATE_TRANSFER, "director-1")
		p.wake(3 * time.Second)
		without[*wirepb.Capture](a) // one at a time
		p.keeper.arrive(3, nil)
		a.say(frames(1, 4, 5))
		p.wake(0)
		a.captured(1, got[*wirepb.Capture](a).GetCapture()+1, 5) // another number: not the answer
		a.report(&wirepb.Captured{Session: 7, Epoch: 1, Capture: capture.GetCapture() + 1, Code: string(wire.CodeLimit)})
		if len(p.keeper.fetches) != 1 {
			t.Errorf("fetched %d", len(p.keeper.fetches))
		}

		a.Lose(link.CauseTether) // the first checkpoint counts
		b := p.worker("b", stateful)
		attach := got[*wirepb.Attach](b)
		state := attach.GetCheckpoint()
		if state.GetSequence() != 3 || state.GetAddr() != "director:61001" || !state.GetAtDirector() || state.GetEpoch() != 2 || state.GetToken() == nil {
			t.Errorf("the next worker is told of %v", state)
		}
		if len(p.keeper.allowed) != 1 || string(p.keeper.allowed[0].GetSecret()) != string(state.GetToken().GetSecret()) || state.GetToken().GetTarget() != "b" {
			t.Errorf("the director allows %v", p.keeper.allowed)
		}
		if string(attach.GetPrefix().GetText()) != "1;2;3;4;5;" {
			t.Errorf("and has the prefix %q", attach.GetPrefix().GetText())
		}
		b.say(begins(2, 6), frames(2, 6, 6))
		b.Lose(link.CauseTether)
		if attach := got[*wirepb.Attach](p.worker("c")); attach.GetCheckpoint() != nil { // another engine than it says
			t.Errorf("a stateless engine is told of %v", attach.GetCheckpoint())
		}
		p.end()
		if p.keeper.drops == 0 || p.keeper.kept {
			t.Error("the state is kept")
		}
	})
}

// TestNoCheckpoints has engines without a state, workers that know none, and a director that wants none.
func TestNoCheckpoints(t *testing.T) {
	for name, c := range map[string]struct {
		script script
		worker func(*link.Peer)
	}{
		"stateless": {script{cfg: everySecond}, func(*link.Peer) {}},
		"off":       {script{}, stateful},
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, c.script, func(p *play) {
				a := p.worker("a", c.worker)
				a.serve(1, 1, 3)
				p.wake(10 * time.Second)
				without[*wirepb.Capture](a)
				p.end()
				without[*wirepb.Discard](a)
				if p.keeper.drops != 0 {
					t.Error("nothing was kept, and dropped")
				}
			})
		})
	}
}

// TestCheckpointBeyondTheJournal has a worker die whose state was ahead of the tokens that came from it. That is the
// state of a stream that never was.
func TestCheckpointBeyondTheJournal(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.checkpoint(a, 1, 5)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		attach := got[*wirepb.Attach](b)
		if attach.GetCheckpoint() != nil {
			t.Errorf("a worker that goes on from token 4 is told of %v", attach.GetCheckpoint())
		}
		b.say(begins(2, 4), frames(2, 4, 8))
		b.Lose(link.CauseTether)
		if attach := got[*wirepb.Attach](p.worker("c", stateful)); attach.GetCheckpoint() != nil {
			t.Errorf("later, a worker is told of %v", attach.GetCheckpoint())
		}
	})
}

// TestCheckpointBeyondTheCut has a planned swap leave a worker whose state was ahead in the same way.
func TestCheckpointBeyondTheCut(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.checkpoint(a, 1, 5)
		b := p.worker("b", stateful)
		p.plan(handover.Plan{})
		b.prepared(2, 3)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		got[*wirepb.Fetch](b)
		b.prepared(2, 3)
		a.say(frames(1, 4, 4))
		b.say(begins(2, 5), frames(2, 5, 8))
		b.Lose(link.CauseTether)
		a.Lose(link.CauseTether)
		if attach := got[*wirepb.Attach](p.worker("c", stateful)); attach.GetCheckpoint() != nil || attach.GetEpoch() <= 2 {
			t.Errorf("a worker is given %v", attach)
		}
	})
}

// TestLateCheckpoint has a state arrive when the session has gone: nobody would ever drop it.
func TestLateCheckpoint(t *testing.T) {
	for name, result := range map[string]error{"arrives": nil, "fails": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{cfg: everySecond}, func(p *play) {
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
				a.say(ends(1, 3))
				p.end()
				p.keeper.arrive(3, result)
				if p.keeper.kept {
					t.Error("the state of a session that has ended is kept")
				}
			})
		})
	}
}

// TestCheckpointOfBefore has a state arrive of a worker that the session has left: nobody knows whether it is one of
// the stream, and it has taken the place of an older one.
func TestCheckpointOfBefore(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.checkpoint(a, 1, 2)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 5)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		if attach := got[*wirepb.Attach](b); attach.GetCheckpoint().GetSequence() != 2 {
			t.Errorf("the next worker is told of %v", attach.GetCheckpoint())
		}
		b.say(begins(2, 4), frames(2, 4, 8))
		p.keeper.arrive(5, nil)
		b.Lose(link.CauseTether)
		if attach := got[*wirepb.Attach](p.worker("c", stateful)); attach.GetCheckpoint() != nil {
			t.Errorf("the one after it is told of %v", attach.GetCheckpoint())
		}
	})
}

// TestPlanComesBeforeCheckpoint begins a planned swap while a checkpoint is under way. The token for the checkpoint
// could get what the swap captures.
func TestPlanComesBeforeCheckpoint(t *testing.T) {
	for _, fetching := range []bool{false, true} {
		t.Run(fmt.Sprint("fetching ", fetching), func(t *testing.T) {
			inPlay(t, script{cfg: everySecond}, func(p *play) {
				a := p.worker("a", stateful)
				a.serve(1, 1, 3)
				p.wake(time.Second)
				capture := got[*wirepb.Capture](a).GetCapture()
				if fetching {
					a.captured(1, capture, 3)
				}
				b := p.worker("b", stateful)
				p.plan(handover.Plan{})
				if !fetching {
					a.captured(1, capture, 3)
				}
				if (len(p.keeper.fetches) != 0) != fetching {
					t.Errorf("fetched: %v", p.keeper.fetches)
				}
				if revoked := got[*wirepb.Revoke](a); revoked.GetSession() != 7 || revoked.GetEpoch() != 2 {
					t.Errorf("revoked: %v", revoked)
				}
				b.prepared(3, 3)
				a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
				if f := got[*wirepb.Fetch](b); f.GetEpoch() != 3 {
					t.Errorf("it was told of %v", f)
				}
				if fetching {
					p.keeper.arrive(0, wire.Errorf(wire.CodeTokenRevoked, "late"))
				}
				b.prepared(3, 3)
				a.say(frames(1, 4, 4))
				got[*wirepb.Pivot](b)
				b.say(begins(3, 5), frames(3, 5, 5))
				if r := p.outcome(); r.State != "Completed" {
					t.Errorf("the swap ended as %+v", r)
				}
				got[*wirepb.Discard](a)
				before := len(p.keeper.fetches)
				p.checkpoint(b, 3, 5) // then it has its slot
				if f := p.keeper.fetches[before]; f.GetAddr() != "b:63001" {
					t.Errorf("fetched %v", f)
				}
			})
		})
	}
}

// TestWithdrawnFromTheRightWorker begins a planned swap after the worker has died whose state is still on its way to a
// peer. The next worker has nothing to take back, and may not even know how.
func TestWithdrawnFromTheRightWorker(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { everySecond(c); c.Checkpoint.AtPeer = true }}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		peer := p.worker("peer", stateful, func(w *link.Peer) { w.Models[0].Fingerprint = "another" })
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		got[*wirepb.Hold](peer)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		b.serve(2, 4, 5)
		p.worker("c", stateful)
		p.plan(handover.Plan{})
		without[*wirepb.Revoke](b)
	})
}

// TestStateBeforeItsTokens has the target get a state before the tokens that lead to it: the cut waits for them.
func TestStateBeforeItsTokens(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		b := p.worker("b", stateful)
		p.plan(handover.Plan{})
		got[*wirepb.Attach](b)
		b.prepared(2, 3)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 6)
		f := got[*wirepb.Fetch](b)
		a.allows(f.GetToken().GetSecret(), wirepb.Purpose_PURPOSE_STATE_TRANSFER, "b")
		if f.GetSequence() != 6 || f.GetAddr() != "a:63001" || f.GetToken() == nil || f.GetEpoch() != 2 {
			t.Errorf("it was told of %v", f)
		}
		b.prepared(2, 3) // and of the text it has so much
		a.say(frames(1, 4, 5))
		p.wake(100 * time.Millisecond)
		without[*wirepb.Pivot](b)
		if feed := got[*wirepb.Feed](b); feed.GetFirstSequence() != 4 || len(feed.GetLengths()) != 2 {
			t.Errorf("fed with %v", feed)
		}
		b.prepared(2, 5)
		a.say(frames(1, 6, 6))
		p.wake(0)
		p.state(migration.Pivoting)
		a.say(frames(1, 7, 7))
		if pivot := got[*wirepb.Pivot](b); pivot.GetCut() != 7 || pivot.GetRest().GetFirstSequence() != 6 {
			t.Errorf("pivot: %v", pivot)
		}
	})
}

// TestNoSnapshot has the source say that it has none.
func TestNoSnapshot(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		b := p.worker("b", stateful)
		p.plan(handover.Plan{})
		b.prepared(2, 3)
		capture := got[*wirepb.Capture](a).GetCapture()
		a.report(&wirepb.Captured{Session: 7, Epoch: 1, Capture: capture, Code: string(wire.CodeLimit), Message: "too large"})
		if r := p.outcome(); r.State != "Aborted" || r.Reason != "limit_exceeded: too large" {
			t.Errorf("the swap ended as %+v", r)
		}
	})
}

// TestCheckpointsThatFail become rare, until one succeeds or another worker serves the session.
func TestCheckpointsThatFail(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { everySecond(c); c.Tokens.TokenMin = time.Hour }}, func(p *play) {
		begun := time.Now()
		after := func(a *actor, epoch uint64, want time.Duration, result error) {
			t.Helper()
			for a.read(); !slices.ContainsFunc(a.mail, func(m wire.Message) bool { _, ok := m.(*wirepb.Capture); return ok }); a.read() {
				p.wake(100 * time.Millisecond)
			}
			if waited := time.Since(begun).Round(time.Second); waited != want {
				t.Errorf("after %v, want %v", waited, want)
			}
			begun = time.Now()
			a.captured(epoch, got[*wirepb.Capture](a).GetCapture(), 3)
			p.keeper.arrive(3, result)
		}
		noRoom := errors.New("no room")
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 64} {
			after(a, 1, time.Duration(seconds)*time.Second, noRoom)
		}
		after(a, 1, 64*time.Second, nil)
		after(a, 1, time.Second, noRoom)
		after(a, 1, 2*time.Second, noRoom)
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		b.serve(2, 4, 6)
		after(b, 2, time.Second, noRoom)
		after(b, 2, 2*time.Second, nil)
		if c := p.limiter.Counts(); c != (checkpoint.Counts{Made: 2, Failed: 11}) {
			t.Errorf("counted %+v", c)
		}
	})
}

// TestPeerKeepsCheckpoints has another worker keep the states.
func TestPeerKeepsCheckpoints(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { everySecond(c); c.Checkpoint.AtPeer = true }}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3) // there is no peer
		peer := p.worker("peer", stateful, func(w *link.Peer) { w.Models[0].Fingerprint = "another" })
		p.wake(2 * time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		hold := got[*wirepb.Hold](peer)
		if hold.GetSourceEpoch() != 1 || hold.GetFrom().GetAddr() != "a:63001" || hold.GetFrom().GetSequence() != 3 {
			t.Errorf("it is to hold %v", hold)
		}
		answer := &wirepb.Held{Session: 7, SourceEpoch: 1, Sequence: 3}
		peer.report(answer)
		peer.report(answer) // nobody asked
		a.Lose(link.CauseTether)
		b := p.worker("b", stateful)
		if state := got[*wirepb.Attach](b).GetCheckpoint(); state.GetAddr() != "peer:63001" || state.GetAtDirector() || state.GetSequence() != 3 {
			t.Errorf("the next worker is told of %v", state)
		}
		if len(p.keeper.fetches) != 0 {
			t.Error("the director keeps it too")
		}
		p.end()
		got[*wirepb.Discard](peer)
	})
}

// TestPeerDies has the peer die that keeps the states, and a transfer to it with it: the next one goes to another.
func TestPeerDies(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { everySecond(c); c.Checkpoint.AtPeer = true }}, func(p *play) {
		another := func(w *link.Peer) { w.Models[0].Fingerprint = "another" }
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		first := p.worker("first", stateful, another)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		got[*wirepb.Hold](first)
		first.report(&wirepb.Held{Session: 7, SourceEpoch: 1, Sequence: 3})
		first.Lose(link.CauseTether)
		second := p.worker("second", stateful, another)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		got[*wirepb.Hold](second)
		second.Lose(link.CauseTether) // on the way
		third := p.worker("third", stateful, another)
		p.wake(time.Second)
		time.Sleep(checkpoint.MaxCooldown)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		got[*wirepb.Hold](third)
		third.report(&wirepb.Held{Session: 7, SourceEpoch: 1, Sequence: 3})
		a.Lose(link.CauseTether)
		if state := got[*wirepb.Attach](p.worker("b", stateful)).GetCheckpoint(); state.GetAddr() != "third:63001" {
			t.Errorf("the next worker is told of %v", state)
		}
	})
}

// TestLateFailure has a transfer end in an error after it was given up: that says nothing about the next one.
func TestLateFailure(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { everySecond(c); c.Tokens.TokenMin = time.Hour }}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		late := p.keeper.done
		p.wake(p.cfg.Handover.TransferTimeout)
		if p.keeper.cancels != 1 {
			t.Error("the transfer goes on")
		}
		time.Sleep(checkpoint.MaxCooldown)
		p.wake(2 * time.Second)
		capture := got[*wirepb.Capture](a).GetCapture()
		late(0, errors.New("cancelled"))
		a.captured(1, capture, 3)
		if len(p.keeper.fetches) != 2 {
			t.Fatalf("fetched %v", p.keeper.fetches)
		}
		p.keeper.arrive(3, nil)
		if c := p.limiter.Counts(); c != (checkpoint.Counts{Made: 1, Failed: 1}) {
			t.Errorf("counted %+v", c)
		}
	})
}

// TestStrayAnswers has workers answer what they were not asked, at bad moments.
func TestStrayAnswers(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		capture := got[*wirepb.Capture](a).GetCapture()
		b := p.worker("b", stateful)
		a.Lose(link.CauseTether)
		b.captured(0, capture, 3) // of no epoch, while the session is in none
		b.captured(1, capture, 3)
		if len(p.keeper.fetches) != 0 {
			t.Errorf("fetched %v", p.keeper.fetches)
		}
		b.serve(2, 4, 5)
		p.told("on a 1 2 3 (failover a→b in 2) 4 5")
	})
}

// TestCheckpointArrivesLast has the state arrive in the moment in which the session gives back what it kept: nobody
// else would.
func TestCheckpointArrivesLast(t *testing.T) {
	inPlay(t, script{cfg: everySecond}, func(p *play) {
		a := p.worker("a", stateful)
		a.serve(1, 1, 3)
		p.wake(time.Second)
		a.captured(1, got[*wirepb.Capture](a).GetCapture(), 3)
		p.keeper.dropped = func() { p.keeper.arrive(3, nil) }
		p.end()
		if p.keeper.kept || p.keeper.drops != 2 {
			t.Errorf("kept %v after %d drops", p.keeper.kept, p.keeper.drops)
		}
	})
}
