package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestNothingIsLeftForTheTarget cuts after the very last token of the stream.
func TestNothingIsLeftForTheTarget(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a, b := p.until(migration.Pivoting)
		a.say(frames(1, 5, 5), ends(1, 5))
		if pivot := got[*wirepb.Pivot](b); pivot.GetCut() != 5 {
			p.Fatalf("pivot: %v", pivot)
		}
		b.say(begins(2, 6), ends(2, 5))
		p.told("5 (planned a→b in 2) done")
		if r := p.outcome(); r.State != "Completed" {
			t.Errorf("the swap ended as %+v", r)
		}
	})
}

// TestCutWithoutToken has a source that makes no token: the cut does not wait for one forever.
func TestCutWithoutToken(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a, b := p.until(migration.Pivoting)
		time.Sleep(1100 * time.Millisecond)
		if pivot := got[*wirepb.Pivot](b); pivot.GetCut() != 4 || len(pivot.GetRest().GetLengths()) != 0 {
			p.Fatalf("pivot: %v", pivot)
		}
		a.say(frames(1, 5, 5))
		b.say(begins(2, 5), frames(2, 5, 5))
		p.told("(planned a→b in 2) 5")
	})
}

// TestTargetFailsAfterTheCut disturbs a planned swap that cannot go back: the session fails over.
func TestTargetFailsAfterTheCut(t *testing.T) {
	for name, disturb := range map[string]func(b *actor){
		"lost":                func(b *actor) { b.Lose(link.CauseTether) },
		"refuses":             func(b *actor) { b.refuse(wire.CodeStaleEpoch) },
		"another text":        func(b *actor) { b.say(begins(2, 4), frames(2, 6, 6)) },
		"another digest":      func(b *actor) { b.say(diverged(2, 6), frames(2, 6, 6)) },
		"tokens before Begin": func(b *actor) { b.say(frames(2, 6, 6)) },
		"one left out":        func(b *actor) { b.say(begins(2, 6), frames(2, 7, 7)) },
		"silence":             func(*actor) { time.Sleep(31 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{}, func(p *play) {
				a, b := p.until(migration.Pivoting)
				a.say(frames(1, 5, 5))
				got[*wirepb.Pivot](b)
				p.told("5")
				for _, full := range []*actor{a, b} {
					full.report(&wirepb.WorkerStatus{})
				}
				c := p.worker("c")
				p.decide(false, "", wire.CodeConflict) // too late
				p.rollBack("too late")
				disturb(b)
				if r := p.outcome(); r.State != migration.Failed.String() || r.Cut != 5 || r.Reason == "" {
					t.Errorf("the swap ended as %+v", r)
				}
				got[*wirepb.Cancel](a)
				c.serve(3, 6, 7)
				p.told("(failover a→c in 3) 6 7")
				b.say(frames(2, 6, 9))
				p.told("")
			})
		})
	}
}

func diverged(epoch, next uint64) []byte {
	return wire.Append(nil, &wirepb.Begin{Session: 7, Epoch: epoch, NextSequence: next, Digest: digest(next)})
}

// TestSourceLostAfterTheCut changes nothing: the session has left it.
func TestSourceLostAfterTheCut(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a, b := p.until(migration.Pivoting)
		a.say(frames(1, 5, 5))
		a.Lose(link.CauseTether)
		got[*wirepb.Pivot](b)
		b.say(begins(2, 6), frames(2, 6, 6))
		p.told("5 (planned a→b in 2) 6")
		if r := p.outcome(); r.State != "Completed" {
			t.Errorf("the swap ended as %+v", r)
		}
	})
}

// hold keeps the owner from looking at its inbox until the function that it returns is called.
func (p *play) hold() (release func()) {
	gate := make(chan struct{})
	p.s.Decide(true, "", func(error) { <-gate })
	synctest.Wait()
	return func() {
		close(gate)
		synctest.Wait()
	}
}

// TestAtOnce has things happen in the moment of the cut: the owner finds all of them together.
func TestAtOnce(t *testing.T) {
	aborted, failed, completed := migration.Aborted, migration.Failed, migration.Completed
	for name, c := range map[string]struct {
		happens func(p *play, a, b *actor)
		state   migration.State // of the swap
		worker  string          // that serves afterwards
		epoch   uint64
	}{
		"a token":                         {func(_ *play, a, _ *actor) { a.say(frames(1, 5, 5)) }, completed, "b", 2},
		"many tokens":                     {func(_ *play, a, _ *actor) { a.say(frames(1, 5, 12)) }, completed, "b", 2},
		"a token, the target is lost":     {func(_ *play, a, b *actor) { a.say(frames(1, 5, 5)); b.Lose(link.CauseTether) }, aborted, "a", 1},
		"the target is lost, a token":     {func(_ *play, a, b *actor) { b.Lose(link.CauseTether); a.say(frames(1, 5, 5)) }, aborted, "a", 1},
		"a token, the source is lost":     {func(_ *play, a, _ *actor) { a.say(frames(1, 5, 5)); a.Lose(link.CauseTether) }, failed, "b", 3},
		"a token, and one too many":       {func(_ *play, a, _ *actor) { a.say(frames(1, 5, 5), frames(1, 7, 7)) }, failed, "b", 3},
		"a token, the target refuses":     {func(_ *play, a, b *actor) { a.say(frames(1, 5, 5)); b.refuse(wire.CodeCapacity) }, failed, "c", 3},
		"the target refuses, a token":     {func(_ *play, a, b *actor) { b.refuse(wire.CodeCapacity); a.say(frames(1, 5, 5)) }, aborted, "a", 1},
		"a veto, a token":                 {func(p *play, a, _ *actor) { p.veto(); a.say(frames(1, 5, 5)) }, aborted, "a", 1},
		"a token, a veto: it is too late": {func(p *play, a, _ *actor) { a.say(frames(1, 5, 5)); p.veto() }, completed, "b", 2},
		"both are lost": {func(_ *play, a, b *actor) {
			a.say(frames(1, 5, 5))
			b.Lose(link.CauseTether)
			a.Lose(link.CauseTether)
		}, aborted, "c", 3},
		"both are lost, the source first": {func(_ *play, a, b *actor) {
			a.say(frames(1, 5, 5))
			a.Lose(link.CauseTether)
			b.Lose(link.CauseTether)
		}, failed, "c", 3},
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{}, func(p *play) {
				a, b := p.until(migration.Pivoting)
				cc := p.worker("c", stateful)
				actors := map[string]*actor{"a": a, "b": b, "c": cc}
				for label, busy := range actors { // whoever is not meant to get the session is full
					busy.report(&wirepb.WorkerStatus{Available: label == c.worker})
				}
				release := p.hold()
				c.happens(p, a, b)
				release()
				made := p.s.Snapshot().Sequence
				switch last := actors[c.worker]; {
				case c.epoch == 2:
					got[*wirepb.Pivot](last)
					last.say(begins(2, made+1), frames(2, made+1, made+1), ends(2, made+1))
				case c.epoch == 1:
					last.say(frames(1, made+1, made+1), ends(1, made+1))
				default:
					last.serve(c.epoch, made+1, made+1)
					last.say(ends(c.epoch, made+1))
				}
				if r := p.outcome(); r.State != c.state.String() {
					t.Errorf("the swap ended as %+v", r)
				}
				if s := p.s.Snapshot(); s.State != session.Done || s.Sequence != made+1 || s.Sent != made+1 {
					t.Errorf("the session ended as %+v", s)
				}
			})
		})
	}
}

// veto asks for one, without waiting for the answer.
func (p *play) veto() { p.s.Decide(false, "no", func(error) {}) }

// TestTargetSpeaksBeforeTheCut sends tokens of a standby that has not been made the owner.
func TestTargetSpeaksBeforeTheCut(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a, b := p.until(migration.TransferringState)
		b.say(begins(2, 5), frames(2, 5, 6))
		a.say(frames(1, 5, 5))
		p.told("5")
		if s := p.s.Snapshot(); s.Fenced != 2 || s.Epoch != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestLostInTheFirstMoment loses the first worker while the client is being told of it: the stream has begun with its
// engine, and stays with that.
func TestLostInTheFirstMoment(t *testing.T) {
	var a *actor
	lose := func(p *play) {
		if a != nil && p.s.Worker() == "a" {
			gone := a
			a = nil
			gone.Lose(link.CauseTether)
		}
	}
	inPlay(t, script{pushed: lose}, func(p *play) {
		first := p.worker("a")
		other := p.worker("c", func(w *link.Peer) { w.Models[0].Fingerprint = "another engine" })
		got[*wirepb.Attach](first)
		release := p.hold()
		first.say(begins(1, 1), frames(1, 1, 1))
		a = first
		release()
		without[*wirepb.Attach](other)
		p.told("on a 1 waits")
		p.worker("b").serve(2, 2, 3)
		p.told("(failover a→b in 2) 2 3")
	})
}

// TestLeavesWithEverything has a client go in the moment in which it has the last frame: it was served to the end.
func TestLeavesWithEverything(t *testing.T) {
	leave := func(p *play) {
		if p.s.Snapshot().Sequence == 3 && p.s.Worker() == "" { // the log is closed
			p.client.Push()
			p.client.Leave()
		}
	}
	inPlay(t, script{pushed: leave}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 3)
		a.say(ends(1, 3))
		p.end()
		p.told("on a 1 2 3 done")
		if p.closed != nil {
			t.Errorf("its stream was broken off: %v", p.closed)
		}
	})
}

// TestEndsAndIsLost has a target make all that was missing, say so and die, before the owner looks: it died, that is
// all.
func TestEndsAndIsLost(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 3)
		b := p.worker("b")
		a.Lose(link.CauseTether)
		got[*wirepb.Attach](b)
		release := p.hold()
		b.say(begins(2, 4), frames(2, 4, 5), ends(2, 5))
		b.Lose(link.CauseTether)
		release()
		if r := p.over[0]; r.State != migration.Failed.String() || r.Reason != string(link.CauseTether) {
			t.Errorf("the handover ended as %+v", r)
		}
	})
}

// TestStopsAtOnce has a worker say everything at once, a stop string in the midst, and end before the owner looks: the text is
// complete before the stop string, and nobody goes on with it.
func TestStopsAtOnce(t *testing.T) {
	inPlay(t, script{stop: []string{string(text(4))}}, func(p *play) {
		a, b := p.worker("a"), p.worker("b")
		got[*wirepb.Attach](a)
		release := p.hold()
		a.say(begins(1, 1), frames(1, 1, 6), ends(1, 6))
		release()
		without[*wirepb.Attach](b)
		p.told("on a 1 2 3 done")
	})
}
