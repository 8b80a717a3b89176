package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/session/sessiontest"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// back has the client come back with so many records of the stream, tokens among them, and read on.
func (p *play) back(records, tokens uint64) (ok bool) {
	p.Helper()
	at, _, err := p.s.Stand(stream.Stand{Records: records, Sequence: tokens, Digest: digest(tokens)})
	if err != nil {
		p.Fatal(err)
	}
	ok = p.s.Resume(func(log *stream.Log, tell func(any)) session.Leg {
		p.client = sessiontest.New(log, at, tell, p.clock)
		return p.client
	})
	synctest.Wait()
	return ok
}

// TestLostClient: the stream goes on without its client, as far as the window allows, also to another worker; the client that
// comes back reads on where it stands. What its old leg says later means nothing.
func TestLostClient(t *testing.T) {
	inPlay(t, script{waits: time.Minute}, func(p *play) {
		a := p.worker("a")
		a.serve(1, 1, 3)
		p.told("on a 1 2 3")
		old := p.client
		old.Leave()
		time.Sleep(10 * time.Second)
		if s := p.s.Snapshot(); s.State != session.Streaming || s.Away == nil || time.Since(*s.Away) < 9*time.Second {
			t.Errorf("while the client is away: %+v", s)
		}
		a.say(frames(1, 4, 8))
		p.told("")
		b := p.worker("b")
		a.Lose("tether")
		b.serve(2, 9, 9)
		if !p.back(4, 2) { // waits, on a, 1, 2
			t.Fatal("the stream is over")
		}
		p.told("3 4 5 6 7 8 (failover a→b in 2) 9")
		old.Leave()
		old.Cancel()
		b.say(frames(2, 10, 11))
		p.told("10 11")
		if s := p.s.Snapshot(); s.Away != nil || s.Resumes != 1 || s.Sent != 11 {
			t.Errorf("when the client is back: %+v", s)
		}
		if credit := got[*wirepb.Credit](b); credit.GetGrants()[0].GetSequence() < 17 {
			t.Errorf("the worker may not go on: %v", credit)
		}
		b.say(ends(2, 11))
		p.told("done")
		if !p.back(14, 11) { // the last frame has not reached it
			t.Fatal("the stream is over before the client has said that it has all")
		}
		p.told("done")
		p.s.Acknowledge(15)
		synctest.Wait()
		p.ended(session.Done)
	})
}

// ended fails unless the session is over, in this state, though nobody has ended it.
func (p *play) ended(want session.State) {
	p.Helper()
	synctest.Wait()
	if s := p.s.Snapshot(); s.State != want {
		p.Errorf("the session ended as %+v, want %s", s, want)
	}
	if p.s.Resume(nil) {
		p.Error("it goes on")
	}
}

// TestClientStaysAway: the stream of a client that does not come back ends, as does one that was delivered and never
// acknowledged; one that others need what it has ends sooner.
func TestClientStaysAway(t *testing.T) {
	for name, test := range map[string]struct {
		leave func(p *play, a *actor)
		after time.Duration
		want  session.State
	}{
		"does not come back": {func(p *play, _ *actor) { p.client.Leave() }, time.Minute, session.Cancelled},
		"says goodbye":       {func(p *play, _ *actor) { p.client.Cancel() }, 0, session.Cancelled},
		"never acknowledges": {func(_ *play, a *actor) { a.say(ends(1, 3)) }, time.Minute, session.Done},
		"others need it": {func(p *play, _ *actor) {
			p.client.Leave()
			time.AfterFunc(10*time.Second, p.s.Yield)
		}, 10 * time.Second, session.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			inPlay(t, script{waits: time.Minute}, func(p *play) {
				a := p.worker("a")
				a.serve(1, 1, 3)
				test.leave(p, a)
				if test.after > 0 {
					time.Sleep(test.after - time.Second)
					p.s.Acknowledge(2)
					synctest.Wait()
					if s := p.s.Snapshot(); s.State == session.Cancelled {
						t.Fatalf("too early: %+v", s)
					}
					time.Sleep(3 * time.Second)
				}
				p.ended(test.want)
			})
		})
	}
}
