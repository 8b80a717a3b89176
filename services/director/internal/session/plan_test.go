package session_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestPlannedSwap goes through a planned swap from both ends.
func TestPlannedSwap(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 3)
		b := p.worker("b")
		p.plan(handover.Plan{Cause: "drain"})
		allowed := got[*wirepb.Allow](b).GetToken()
		standby := got[*wirepb.Attach](b)
		if allowed.GetPurpose() != wirepb.Purpose_PURPOSE_MIGRATION || allowed.GetTarget() != "b" || allowed.GetToEpoch() != 2 ||
			len(allowed.GetSecret()) == 0 || !bytes.Equal(allowed.GetSecret(), standby.GetSecret()) {
			p.Errorf("%v is allowed, and the secret shown is %x", allowed, standby.GetSecret())
		}
		without[*wirepb.Allow](a)
		if !standby.GetStandby() || standby.GetEpoch() != 2 || standby.GetCredit() != 0 ||
			string(standby.GetPrefix().GetText()) != "1;2;3;" || string(standby.GetPrefix().GetDigest()) != string(digest(3)) {
			p.Fatalf("the standby was given %v", standby)
		}
		p.state(migration.Preparing)
		a.say(frames(1, 4, 4)) // the source goes on
		b.prepared(2, 3)
		p.state(migration.Pivoting)
		without[*wirepb.Pivot](b)

		release := p.hold()
		a.say(frames(1, 5, 6)) // the owner finds both
		release()
		pivot := got[*wirepb.Pivot](b)
		cut := pivot.GetCut()
		if rest := pivot.GetRest(); rest.GetEpoch() != 2 || rest.GetFirstSequence() != 4 || uint64(len(rest.GetLengths())) != cut-3 ||
			string(pivot.GetDigest()) != string(digest(cut)) || pivot.GetCredit() <= cut || cut != 6 {
			p.Fatalf("the pivot is %v", pivot)
		}
		a.say(frames(1, 7, 8), ends(1, 8)) // late: it is fenced
		p.told("on a 1 2 3 4 5 6")
		if s := p.s.Snapshot(); s.State != session.Moving || s.Epoch != 2 || s.Fenced != 2 || p.s.Worker() != "" {
			t.Errorf("after the cut: %+v", s)
		}

		b.say(begins(2, 7))
		without[*wirepb.Cancel](a)
		b.say(frames(2, 7, 9))
		if c := got[*wirepb.Cancel](a); c.GetEpoch() != 1 {
			t.Errorf("the source was sent %v", c)
		}
		p.told("(planned a→b in 2) 7 8 9")
		r := p.outcome()
		if r.State != "Completed" || r.From != "a" || r.To != "b" || r.Cut != 6 || r.Epoch != 2 || r.Cause != "drain" || r.Reason != "" {
			t.Errorf("the record is %+v", r)
		}
		if workers, _ := p.placement.Workers(); workers[0].Sessions != 0 || workers[1].Sessions != 1 || workers[1].Incoming != 0 {
			t.Errorf("the workers are %+v", workers)
		}
		a.Lose(link.CauseTether) // who cares
		b.say(ends(2, 9))
		p.told("done")
		if s := p.s.Snapshot(); s.State != session.Done || s.Swaps != 1 || len(p.over) != 1 {
			t.Errorf("in the end %+v, %d swaps", s, len(p.over))
		}
	})
}

// TestStandbyFollows has a standby that is slow to catch up.
func TestStandbyFollows(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { c.Window = 100 }}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 1)
		b := p.worker("b")
		p.plan(handover.Plan{})
		got[*wirepb.Attach](b)
		a.say(frames(1, 2, 30))
		b.prepared(2, 1)
		p.state(migration.TransferringState)
		feed := got[*wirepb.Feed](b)
		if feed.GetFirstSequence() != 2 || len(feed.GetLengths()) != 29 || feed.GetEpoch() != 2 {
			t.Errorf("fed with %v", feed)
		}
		a.say(frames(1, 31, 40))
		b.prepared(2, 99) // which there is not
		time.Sleep(100 * time.Millisecond)
		without[*wirepb.Feed](b) // one at a time
		b.prepared(2, 30)
		p.state(migration.Pivoting)
		a.say(frames(1, 41, 41))
		if pivot := got[*wirepb.Pivot](b); pivot.GetRest().GetFirstSequence() != 31 || pivot.GetCut() != 41 {
			t.Errorf("pivot: %v", pivot)
		}
	})
}

// TestSourceIsLostWhileItsStandbyFollows has the standby go on behind what it was given, of which it has not said yet that it has it.
func TestSourceIsLostWhileItsStandbyFollows(t *testing.T) {
	inPlay(t, script{cfg: func(c *session.Config) { c.Window = 100 }}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 1)
		b := p.worker("b")
		p.plan(handover.Plan{})
		got[*wirepb.Attach](b)
		a.say(frames(1, 2, 30))
		b.prepared(2, 1)
		if feed := got[*wirepb.Feed](b); feed.GetFirstSequence() != 2 || len(feed.GetLengths()) != 29 {
			t.Errorf("fed with %v", feed)
		}
		a.say(frames(1, 31, 33))
		a.Lose(link.CauseTether)
		synctest.Wait()
		pivot := got[*wirepb.Pivot](b)
		if pivot.GetRest().GetFirstSequence() != 31 || len(pivot.GetRest().GetLengths()) != 3 || pivot.GetCut() != 33 {
			t.Errorf("pivot: %v", pivot)
		}
	})
}

// TestStandbyNeverCatchesUp is cut over all the same, after so many rounds.
func TestStandbyNeverCatchesUp(t *testing.T) {
	inPlay(t, script{tokens: 1000, cfg: func(c *session.Config) { c.Window = 1000 }}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 1)
		b := p.worker("b")
		p.plan(handover.Plan{})
		got[*wirepb.Attach](b)
		made, ready := uint64(1), uint64(1)
		for rounds := 0; p.s.Swap().State != migration.Pivoting.String(); rounds++ {
			if rounds > 10 {
				p.Fatal("fed forever")
			}
			a.say(frames(1, made+1, made+20))
			made += 20
			b.prepared(2, ready)
			ready = made
		}
		a.say(frames(1, made+1, made+1))
		if pivot := got[*wirepb.Pivot](b); pivot.GetCut() != made+1 {
			t.Errorf("pivot: %v", pivot)
		}
	})
}

// TestTokensOfThisSecond finds that the target has had its migration tokens: the swap waits a moment.
func TestTokensOfThisSecond(t *testing.T) {
	inPlay(t, script{rate: 1}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 3)
		b := p.worker("b")
		p.plan(handover.Plan{})
		got[*wirepb.Attach](b)
		p.rollBack("again")
		p.outcome()
		p.plan(handover.Plan{})
		p.state(migration.Preparing)
		without[*wirepb.Attach](b)
		time.Sleep(1200 * time.Millisecond)
		if attach := got[*wirepb.Attach](b); attach.GetEpoch() != 3 || attach.GetSecret() == nil {
			t.Errorf("it was given %v", attach)
		}
	})
}
