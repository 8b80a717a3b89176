package worker_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// shown is what a test of misuse works with: a director, its link to worker-a, and a second director.
type shown struct {
	*bench

	one, other *fakedirector.Planner
	link       *fakedirector.Link
	claims     token.Claims // what a good token says
}

// give has the director allow what is good, but for a change, and returns the token.
func (s *shown) give(t *testing.T, change func(c *token.Claims)) *wirepb.Token {
	t.Helper()
	claims := s.claims
	change(&claims)
	return s.one.Give(t, "worker-a", claims)
}

func (s *shown) good(t *testing.T) *wirepb.Token {
	t.Helper()
	return s.give(t, func(*token.Claims) {})
}

// changed is a good token whose secret was changed on its way.
func (s *shown) changed(t *testing.T, change func(secret []byte) []byte) *wirepb.Token {
	t.Helper()
	return &wirepb.Token{Secret: change(bytes.Clone(s.good(t).GetSecret()))}
}

// misuses are the ways to misuse a token that stands for session 1 and leads from epoch 1 to epoch 2. Each returns what
// is shown at last.
var misuses = map[string]struct {
	show func(t *testing.T, s *shown) *wirepb.Token
	want wire.Code
}{
	"missing": {func(*testing.T, *shown) *wirepb.Token { return nil }, wire.CodeTokenMissing},
	"empty":   {func(*testing.T, *shown) *wirepb.Token { return &wirepb.Token{} }, wire.CodeTokenMissing},
	"expired": {func(t *testing.T, s *shown) *wirepb.Token {
		allowed := s.good(t)
		time.Sleep(token.MaxTTL)
		return allowed
	}, wire.CodeTokenExpired},
	"of another session": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.give(t, func(c *token.Claims) { c.Session++ })
	}, wire.CodeTokenSession},
	"for another target": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.give(t, func(c *token.Claims) { c.Target = "worker-c" })
	}, wire.CodeTokenTarget},
	"for another purpose": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.give(t, func(c *token.Claims) {
			c.Purpose = wirepb.Purpose_PURPOSE_MIGRATION + wirepb.Purpose_PURPOSE_STATE_TRANSFER - c.Purpose
		})
	}, wire.CodeTokenPurpose},
	"tampered": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.changed(t, func(secret []byte) []byte { secret[10]++; return secret })
	}, wire.CodeTokenUnknown},
	"with the end of another": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.changed(t, func(secret []byte) []byte { return append(secret[:16], s.good(t).GetSecret()[16:]...) })
	}, wire.CodeTokenUnknown},
	"cut short": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.changed(t, func(secret []byte) []byte { return secret[:31] })
	}, wire.CodeTokenTampered},
	"huge": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.changed(t, func(secret []byte) []byte { return append(secret, make([]byte, 32<<10)...) })
	}, wire.CodeTokenTampered},
	"of an unknown director": {func(t *testing.T, s *shown) *wirepb.Token {
		return fakedirector.NewPlanner("nobody").Give(t, "worker-a", s.claims)
	}, wire.CodeTokenUnknown},
	"not given to this worker": {func(t *testing.T, s *shown) *wirepb.Token {
		return s.one.Give(t, "worker-c", s.claims)
	}, wire.CodeTokenUnknown},
	"that is none": {func(t *testing.T, s *shown) *wirepb.Token {
		bad := must(s.one.Issue(s.claims))
		bad.FromEpoch = bad.GetToEpoch()
		s.link.Send(t, &wirepb.Allow{Token: bad}, &wirepb.Allow{})
		return bad
	}, wire.CodeTokenUnknown},
	"of another director in this one's name": {func(t *testing.T, s *shown) *wirepb.Token {
		bad := must(s.one.Issue(s.claims))
		s.rogue(t).Send(t, &wirepb.Allow{Token: bad})
		return bad
	}, wire.CodeTokenUnknown},
	"of a director that has gone": {func(t *testing.T, s *shown) *wirepb.Token {
		l := s.rogue(t)
		allowed := s.other.Give(t, "worker-a", s.claims)
		time.Sleep(time.Second)
		l.Close()
		time.Sleep(time.Second)
		return allowed
	}, wire.CodeTokenUnknown},
	"revoked": {func(t *testing.T, s *shown) *wirepb.Token {
		allowed := s.good(t)
		s.link.Send(t, &wirepb.Revoke{Session: 1, Epoch: 2})
		return allowed
	}, wire.CodeTokenRevoked},
	"made after its epoch was revoked": {func(t *testing.T, s *shown) *wirepb.Token {
		s.link.Send(t, &wirepb.Revoke{Session: 1, Epoch: 7}, &wirepb.Revoke{Session: 1, Epoch: 1})
		return s.good(t)
	}, wire.CodeTokenRevoked},
}

// rogue lets a second director link to the worker.
func (s *shown) rogue(t *testing.T) *fakedirector.Link {
	t.Helper()
	s.other = fakedirector.NewPlanner("other")
	l := s.other.Open(t, s.World, s.Net.Host("director-2"), userAddr)
	t.Cleanup(l.Close)
	return l
}

// refusals fails unless the status of worker-a tells of refused tokens: one with this code.
func (s *shown) refusals(t *testing.T, code wire.Code) {
	t.Helper()
	got := s.status(t).MigrationTokens
	if len(got.Refused) != 1 || got.Refused[code] != 1 {
		t.Errorf("counted: %v, want one %s", got, code)
	}
}

func TestMisusedTokensAttachNothing(t *testing.T) {
	cases := make(map[string]func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code))
	for name, misuse := range misuses {
		cases[name] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
			m := s.one.Standby(t, attach(1, 2, 10), "worker-a")
			m.Secret = misuse.show(t, s).GetSecret()
			return m, misuse.want
		}
	}
	cases["replayed"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		m := s.one.Standby(t, attach(1, 2, 10), "worker-a")
		s.link.Send(t, m)
		prepared(t, s.link, 1, 2, 0)
		s.link.Send(t, &wirepb.Cancel{Session: 1, Epoch: 2})
		return m, wire.CodeTokenReplayed
	}
	cases["replayed while it is in use"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		m := s.one.Standby(t, attach(1, 2, 10), "worker-a")
		s.link.Send(t, m)
		prepared(t, s.link, 1, 2, 0)
		return m, wire.CodeTokenReplayed
	}
	cases["for an older epoch"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		m := s.one.Standby(t, attach(1, 2, 10), "worker-a")
		m.Epoch = 3
		return m, wire.CodeTokenEpoch
	}
	cases["for a later epoch"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		m := s.one.Standby(t, attach(1, 3, 10), "worker-a")
		m.Epoch = 2
		return m, wire.CodeTokenEpoch
	}
	cases["after a later one"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		s.link.Send(t, s.one.Standby(t, attach(1, 9, 10), "worker-a"))
		prepared(t, s.link, 1, 9, 0)
		s.link.Send(t, &wirepb.Cancel{Session: 1, Epoch: 9})
		return s.one.Standby(t, attach(1, 2, 10), "worker-a"), wire.CodeTokenEpoch
	}
	cases["of another director"] = func(t *testing.T, s *shown) (*wirepb.Attach, wire.Code) {
		s.rogue(t)
		m := s.other.Standby(t, attach(1, 2, 10), "worker-a")
		time.Sleep(time.Second) // links have no common order
		return m, wire.CodeTokenSession
	}
	for name, show := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := settings()
			cfg.Capacity = 2
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				s := &shown{bench: b, one: p, link: p.Open(t, b.World, b.from, userAddr), claims: token.Claims{
					Purpose: wirepb.Purpose_PURPOSE_MIGRATION, Session: 1, ConnectionID: "conn-1", StreamID: 1,
					Target: "worker-a", FromEpoch: 1, ToEpoch: 2,
				}}
				m, want := show(t, s)
				s.link.Send(t, m)
				refused(t, s.link, 1, m.GetEpoch(), want)
				silent(t, s.link, time.Second)
				s.refusals(t, want)
				status := b.status(t)
				if status.Refusals[want] != 1 {
					t.Errorf("refusals: %v", status.Refusals)
				}
				for range cfg.Capacity - len(status.Sessions) { // no place was taken
					m = s.one.Standby(t, attach(m.GetSession()+1, 10, 10), "worker-a")
					s.link.Send(t, m)
					prepared(t, s.link, m.GetSession(), 10, 0)
				}
				s.link.Close()
			})
		})
	}
}

func TestMisusedTokensPullNothing(t *testing.T) {
	cfg := planned("stateful")
	cases := make(map[string]func(t *testing.T, s *shown) (*wirepb.Token, wire.Code))
	for name, misuse := range misuses {
		cases[name] = func(t *testing.T, s *shown) (*wirepb.Token, wire.Code) { return misuse.show(t, s), misuse.want }
	}
	delete(cases, "of another session") // which has no state here
	cases["replayed"] = func(t *testing.T, s *shown) (*wirepb.Token, wire.Code) {
		allowed := s.good(t)
		if _, err := s.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: allowed}); err != nil {
			t.Fatal(err)
		}
		s.capture(t, 2)
		return allowed, wire.CodeTokenReplayed
	}
	cases["of another source"] = func(t *testing.T, s *shown) (*wirepb.Token, wire.Code) {
		return s.give(t, func(c *token.Claims) { c.Source = "worker-c" }), wire.CodeTokenTarget
	}
	cases["after a later one"] = func(t *testing.T, s *shown) (*wirepb.Token, wire.Code) {
		later := s.give(t, func(c *token.Claims) { c.ToEpoch = 9 })
		if _, err := s.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: later}); err != nil {
			t.Fatal(err)
		}
		s.capture(t, 2)
		return s.good(t), wire.CodeTokenEpoch
	}
	for name, show := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				s := b.source(t)
				allowed, want := show(t, s)
				_, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: allowed})
				hasCode(t, err, want)
				s.refusals(t, want)
				if b.status(t).SnapshotBytes == 0 {
					t.Error("the snapshot is gone")
				}
				good := s.give(t, func(c *token.Claims) { c.ToEpoch = 10 })
				if _, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: good}); err != nil {
					t.Errorf("a good token afterwards: %v", err)
				}
				s.link.Close()
			})
		})
	}
}

// source is a director with a session on worker-a whose state is captured, and tokens for worker-b to pull it.
func (b *bench) source(t *testing.T) *shown {
	t.Helper()
	p := fakedirector.NewPlanner("one")
	s := &shown{bench: b, one: p, link: p.Open(t, b.World, b.from, userAddr), claims: token.Claims{
		Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Session: 1, ConnectionID: "conn-1", StreamID: 1,
		Source: "worker-a", Target: "worker-b", FromEpoch: 1, ToEpoch: 2,
	}}
	m := attach(1, 1, 0)
	m.Credit = 10
	s.link.Send(t, m)
	var tokens [][]byte
	hearTokens(t, s.link, &tokens, 10)
	s.capture(t, 1)
	return s
}

func (s *shown) capture(t *testing.T, number uint64) {
	t.Helper()
	s.link.Send(t, &wirepb.Capture{Session: 1, Epoch: 1, Capture: number, KeepMs: 60_000})
	if m := fakedirector.Next[*wirepb.Captured](t, s.link); m.GetCode() != "" || m.GetSequence() != 10 {
		t.Fatalf("got %v", m)
	}
}

// hasCode fails unless err is a refusal with that code.
func hasCode(t *testing.T, err error, want wire.Code) {
	t.Helper()
	if refusal := new(wire.Error); !errors.As(err, &refusal) || refusal.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A token is worth nothing to whoever has another name, or no state is there for it.
func TestPullBySomebodyElse(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		fetch := &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: s.good(t)}
		_, err := b.pullAs(t, identity.Worker, "worker-c", fetch)
		hasCode(t, err, wire.CodeTokenTarget)
		_, err = b.pullAs(t, identity.Operator, "worker-b", fetch)
		hasCode(t, err, wire.CodeUnauthorized)
		_, err = b.pullAs(t, identity.Client, "worker-b", fetch)
		if err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("a client: got %v", err)
		}
		_, err = b.pull(t, &wirepb.Fetch{Session: 2, Addr: mgmtAddr, Token: s.give(t, func(c *token.Claims) { c.Session = 2 })})
		hasCode(t, err, wire.CodeStateGone)
		if _, err := b.pullAs(t, identity.Director, "worker-b", fetch); err != nil { // the name counts
			t.Errorf("a director: %v", err)
		}
		s.link.Close()
	})
}

// ask sends one message to worker-a's MGMT port and returns the error that it answers.
func (b *bench) ask(t *testing.T, role identity.Role, m wire.Message) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := quicnet.Dial(ctx, b.from, mgmtAddr, identity.ClientTLS(b.TLS[role], wire.ALPNMgmt, identity.Worker), quicnet.MgmtConfig(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(wire.QUICOk, "") //nolint:errcheck // the answer is here
	stream := must(conn.OpenStreamSync(ctx))
	if _, err := stream.Write(wire.Append(nil, m)); err != nil {
		t.Fatal(err)
	}
	_, err = wire.ReadMessage[*wirepb.Snapshot](wire.NewReader(stream, wire.MaxControl))
	return err
}

func TestMgmtPortTakesNothingElse(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		for _, m := range []wire.Message{&wirepb.Register{}, &wirepb.Attach{}, &wirepb.Heartbeat{}, &wirepb.PullDone{}} {
			hasCode(t, b.ask(t, identity.Operator, m), wire.CodeProtocol)
			hasCode(t, b.ask(t, identity.Worker, m), wire.CodeProtocol)
		}
		hasCode(t, b.ask(t, identity.Operator, &wirepb.Pull{Puller: "worker-b"}), wire.CodeUnauthorized)
		hasCode(t, b.ask(t, identity.Worker, &wirepb.Pull{Puller: "worker-b"}), wire.CodeTokenMissing)
		hasCode(t, b.ask(t, identity.Worker, &wirepb.Pull{FirstChunk: 1<<32 - 1}), wire.CodeTokenMissing)
		if counts := b.status(t).MigrationTokens; counts.Accepted != 0 || counts.Refused[wire.CodeTokenMissing] != 2 {
			t.Errorf("counted: %v", counts)
		}
	})
}

// What is revoked ends at once, not at the next chunk that happens to be asked for.
func TestRevokeEndsATransfer(t *testing.T) {
	cfg := planned("stateful")
	cfg.TransferRate = 64 << 10
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		done := make(chan error, 1)
		go func() {
			_, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: s.good(t)})
			done <- err
		}()
		time.Sleep(2 * time.Second)
		start := time.Now()
		s.link.Send(t, &wirepb.Revoke{Session: 1, Epoch: 2})
		hasCode(t, <-done, wire.CodeTokenRevoked)
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
		if b.status(t).SnapshotBytes == 0 {
			t.Error("the snapshot is gone")
		}
		s.link.Close()
	})
}

// A state may be asked for before the director's word of it has arrived: links have no common order.
func TestPullWaitsForItsToken(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		for _, c := range []struct {
			late time.Duration
			want wire.Code
		}{{time.Second, ""}, {4 * time.Second, wire.CodeTokenUnknown}} {
			late, want := c.late, c.want
			allowed, done := must(s.one.Issue(s.claims)), make(chan error, 1)
			go func() {
				_, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: allowed})
				done <- err
			}()
			time.Sleep(late)
			s.link.Send(t, &wirepb.Allow{Token: allowed})
			if err := <-done; want != "" || err != nil {
				hasCode(t, err, want)
			}
			s.capture(t, uint64(2+late.Seconds()))
		}
		s.link.Close()
	})
}

// What a director allows ends with its link. The next one brings it anew.
func TestTokensEndWithTheLink(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := p.Open(t, b.World, b.from, userAddr)
		old := p.Standby(t, attach(1, 2, 0), "worker-a")
		time.Sleep(time.Second)
		next := p.Open(t, b.World, b.from, userAddr) // which ends the older one
		if closed := l.Lost(t); closed.ErrorCode != wire.QUICLost {
			t.Errorf("got %v", closed)
		}
		next.Send(t, old)
		refused(t, next, 1, 2, wire.CodeTokenUnknown)
		next.Send(t, p.Standby(t, attach(1, 2, 0), "worker-a"))
		prepared(t, next, 1, 2, 0)
		l.Close()
		next.Close()
	})
}
