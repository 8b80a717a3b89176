package session_test

import (
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// decide decides as an operator would, and fails unless the answer has this code.
func (p *play) decide(confirm bool, reason string, want wire.Code) {
	p.Helper()
	answers := make(chan error, 2)
	p.s.Decide(confirm, reason, func(err error) { answers <- err })
	synctest.Wait()
	select {
	case err := <-answers:
		e := &wire.Error{}
		if err != nil {
			e = wire.AsError(err, wire.CodeInternal)
		}
		if e.Code != want {
			p.Errorf("the decision was answered %v, want %q", err, want)
		}
	default:
		p.Fatal("the decision was not answered")
	}
	if len(answers) > 0 {
		p.Error("and answered again")
	}
}

func TestDecisions(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		p.decide(true, "", wire.CodeNotFound)
		a, b := p.until(migration.WaitingConfirmation)
		without[*wirepb.Attach](b)
		p.decide(true, "", "")
		p.state(migration.Preparing)
		p.decide(true, "", wire.CodeConflict) // it was confirmed
		p.decide(false, "no", "")
		p.decide(false, "no", wire.CodeNotFound)
		a.say(ends(1, 4))
		p.decide(true, "", wire.CodeConflict)
		p.end()
		p.decide(false, "", wire.CodeConflict)
	})
}

// TestDeclined asks for swaps that cannot begin.
func TestDeclined(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		declined := func(plan handover.Plan, reason string) {
			t.Helper()
			p.plan(plan)
			if r := p.outcome(); r.State != "Idle" || r.Reason != reason || r.Kind != "planned" || r.ConnectionID != "conn-test" {
				t.Errorf("answered %+v", r)
			}
		}
		declined(handover.Plan{}, "the stream is being moved already") // to its first worker
		a := p.worker("a")
		a.serve(1, 1, 2)
		declined(handover.Plan{To: "a"}, "the stream is on that worker already")
		p.plan(handover.Plan{})
		declined(handover.Plan{}, "the stream is being moved already")
		a.say(ends(1, 2))
		if r := p.outcome(); r.State != "Aborted" {
			t.Errorf("the first one ended as %+v", r)
		}
		declined(handover.Plan{}, "the stream has ended")
		p.end()
		declined(handover.Plan{}, "the stream has ended")
		if len(p.over) != 1 {
			t.Errorf("%d swaps, those that did not begin included", len(p.over))
		}
	})
}

// TestNoRequestIsLost has requests and decisions arrive with what ends the session: each is answered.
func TestNoRequestIsLost(t *testing.T) {
	inPlay(t, script{}, func(p *play) {
		p.worker("a").serve(1, 1, 2)
		answers := make(chan error, 2)
		done := make(chan migration.Record, 2)
		release := p.hold()
		p.client.Leave()
		for range 2 {
			rollBack := p.s.Initiate(handover.Plan{Done: func(r migration.Record) { done <- r }})
			p.s.Decide(true, "", func(err error) { answers <- err })
			rollBack("too late")
		}
		release()
		synctest.Wait()
		if len(answers) != 2 || len(done) != 2 {
			t.Errorf("%d decisions and %d plans were answered, of two each", len(answers), len(done))
		}
	})
}
