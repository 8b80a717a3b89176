package sim

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// away is what a test does while the client of a stream is cut off.
type away struct {
	cut    time.Duration
	oneWay bool                            // only what the client sends is lost: it is told that it is lost
	sleep  bool                            // it is not the network, the client's machine sleeps
	during func(t *testing.T, s *scenario) // a second after the cut began
}

// play reads a stream of tokens, and cuts the client off behind the 20th.
func (a away) play(t *testing.T, s *scenario, tokens int) outcome {
	client, director := s.net.Host("client"), s.net.Host("director")
	return s.generate(tokens, func(sequence uint64, _ string) {
		if sequence != 20 {
			return
		}
		if a.sleep {
			client.Freeze()
			time.AfterFunc(a.cut, client.Thaw)
		} else {
			s.net.Cut(client, director)
			if !a.oneWay {
				s.net.Cut(director, client)
			}
			time.AfterFunc(a.cut, func() {
				s.net.Heal(client, director)
				s.net.Heal(director, client)
			})
		}
		if a.during != nil {
			time.AfterFunc(time.Second, func() { a.during(t, s) })
		}
	})
}

// TestResume: the client is cut off for so long that both ends give the QUIC connection up. It comes back, and its stream goes
// on at the very next token, under the same connection id.
func TestResume(t *testing.T) {
	const tokens = 400
	for name, a := range map[string]away{
		"cut of 20 s":        {cut: 20 * time.Second},
		"CONNECTION_CLOSE":   {cut: 9 * time.Second, oneWay: true},
		"the machine sleeps": {cut: 20 * time.Second, sleep: true},
		"its worker dies meanwhile": {cut: 20 * time.Second, during: func(_ *testing.T, s *scenario) {
			for _, w := range s.registered() {
				if w.Sessions > 0 {
					p := s.worker(w.Worker)
					p.die(p.host.Kill)
				}
			}
		}},
		"it is moved meanwhile": {cut: 20 * time.Second, during: func(t *testing.T, s *scenario) {
			if _, err := s.operate().Swap(s.ctx, s.conn.ID(), 1, ""); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			fast := func(cfg *config.Worker) { cfg.TokenInterval = 20 * time.Millisecond }
			stage(t, setup{worker: fast}, func(t *testing.T, s *scenario) {
				before, err := s.conn.Proof()
				if err != nil {
					t.Fatal(err)
				}
				id := s.conn.ID()
				got := a.play(t, s, tokens)
				if got.err != nil || got.text != s.reference(tokens) || len(got.resumes) != 1 {
					t.Fatalf("%d tokens, resumed %v: %v", got.tokens, got.resumes, got.err)
				}
				r := got.resumes[0]
				least := a.cut - time.Second
				if a.oneWay {
					least = time.Second // tokens came until the director gave up
				}
				if r.Gap < least || r.Gap > a.cut+time.Second || r.Cause == nil {
					t.Errorf("resumed after %v, because of %v", r.Gap, r.Cause)
				}
				if wanted := a.during != nil; wanted != (len(got.swaps) > 0) {
					t.Errorf("swaps %v", got.swaps)
				}
				after, err := s.conn.Proof()
				if err != nil || after == before || after != r.Proof || s.conn.ID() != id {
					t.Errorf("connection %s %v became %s %v, %v", id, before, s.conn.ID(), after, err)
				}
				if err := s.sameAtDirector(id, after); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestResumeTooLate: the director keeps a stream for as long as it says, and then gives its place to others; the client is told
// what happened.
func TestResumeTooLate(t *testing.T) {
	for name, wait := range map[string]time.Duration{"too late": 5 * time.Second, "not wanted": 0} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{director: func(cfg *config.Director) { cfg.ResumeWait = wait }}, func(t *testing.T, s *scenario) {
				got := away{cut: 20 * time.Second}.play(t, s, 1000)
				if !errors.Is(got.err, &connswap.Error{Code: connswap.CodeLost}) || len(got.resumes) > 0 {
					t.Errorf("%d tokens, %v", got.tokens, got.err)
				}
				time.Sleep(10 * time.Second)
				for _, w := range s.registered() {
					if w.Sessions > 0 {
						t.Errorf("%+v has a session", w)
					}
				}
				if (s.logged.count("client did not come back") > 0) != (wait > 0) {
					t.Error("the director does not say that the client did not come back")
				}
			})
		})
	}
}

// TestResumeAtAnotherProcess: a director that was started again knows nothing of its predecessor's clients, and says so.
func TestResumeAtAnotherProcess(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		got := away{cut: 10 * time.Second, during: func(_ *testing.T, s *scenario) {
			s.killDirector()
			s.direct(nil)
		}}.play(t, s, 1000)
		if !errors.Is(got.err, &connswap.Error{Code: connswap.CodeLost}) || !errors.Is(got.err, &connswap.Error{Code: connswap.CodeResumeUnknown}) {
			t.Errorf("%d tokens, %v", got.tokens, got.err)
		}
	})
}

// TestResumeWithoutTokens: the request itself was lost with the connection, or its answer; the stream begins once.
func TestResumeWithoutTokens(t *testing.T) {
	for name, answers := range map[string]bool{"the request is lost": false, "the answer is lost": true} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{}, func(t *testing.T, s *scenario) {
				client, director := s.net.Host("client"), s.net.Host("director")
				from, to := client, director
				if answers {
					from, to = to, from
				}
				s.net.Cut(from, to)
				time.AfterFunc(15*time.Second, func() { s.net.Heal(from, to) })
				got := s.generate(50, nil)
				if got.err != nil || got.text != s.reference(50) || len(got.resumes) != 1 {
					t.Errorf("%d tokens, resumed %v: %v", got.tokens, got.resumes, got.err)
				}
				if n := s.logged.count("worker assigned"); n != 1 {
					t.Errorf("the stream began %d times", n)
				}
			})
		})
	}
}

// TestResumeOfMany: a client with many streams comes back with all of them over one QUIC connection, and the one that it
// asked for meanwhile is served.
func TestResumeOfMany(t *testing.T) {
	const streams, tokens = 20, 200
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		client, director := s.net.Host("client"), s.net.Host("director")
		ends := make(chan outcome, streams+1)
		for range streams {
			go func() { ends <- s.generate(tokens, nil) }()
		}
		time.Sleep(time.Second)
		cut(s.net, client, director)
		time.Sleep(8 * time.Second)
		go func() { ends <- s.generate(tokens, nil) }()
		time.Sleep(8 * time.Second)
		heal(s.net, client, director)
		var proofs []connswap.Proof
		for range streams + 1 {
			o := <-ends
			if o.err != nil || o.text != s.reference(tokens) {
				t.Fatalf("%d tokens, %v", o.tokens, o.err)
			}
			for _, r := range o.resumes {
				proofs = append(proofs, r.Proof)
			}
		}
		if len(proofs) != streams || len(slices.Compact(proofs)) != 1 {
			t.Errorf("%d resumed, over %d connections", len(proofs), len(slices.Compact(proofs)))
		}
	})
}

func cut(n *simtest.Net, a, b *simtest.Host)  { n.Cut(a, b); n.Cut(b, a) }
func heal(n *simtest.Net, a, b *simtest.Host) { n.Heal(a, b); n.Heal(b, a) }
