package sim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// TestDirectorIsKilledAndStartedAgain: its workers are back at once, and what an operator wished of them is still known.
func TestDirectorIsKilledAndStartedAgain(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		drained := s.workers[0].cfg.Label
		if _, err := s.operate().Drain(s.ctx, drained, time.Minute, false, nil); err != nil {
			t.Fatal(err)
		}
		for restart := range 2 {
			time.Sleep(3456 * time.Millisecond)
			s.killDirector()
			s.direct(nil)
			time.Sleep(time.Second)
			status, err := s.operate().Status(s.ctx)
			if err != nil || len(status.Workers) != 2 {
				t.Fatalf("a second after restart %d: %+v, %v", restart, status.Workers, err)
			}
			for _, w := range status.Workers {
				if !w.Connected || w.Draining != (w.Worker == drained) {
					t.Errorf("after restart %d: %+v", restart, w)
				}
			}
			s.expectWorkers(t, fmt.Sprintf("after-%d", restart), s.workers[1].cfg.Label)
		}
		if n := s.logged.count("stays drained"); n != 2 {
			t.Errorf("logged %d times", n)
		}
		if err := s.operate().Undrain(s.ctx, drained); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.killDirector()
		s.direct(nil)
		time.Sleep(time.Second)
		s.expectWorkers(t, "at-last", s.workers[0].cfg.Label, s.workers[1].cfg.Label)
	})
}

// expectWorkers opens four streams and fails unless these workers serve them.
func (s *scenario) expectWorkers(t *testing.T, client string, want ...string) {
	t.Helper()
	conn, err := s.dial(client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // all is read
	used := make(map[string]bool)
	for range 4 {
		stream, err := conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 3, Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		for event, err := range stream.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if assigned, ok := event.(connswap.Assigned); ok {
				used[assigned.Worker] = true
			}
		}
	}
	if len(used) != len(want) {
		t.Errorf("%s: served by %v, want %v", client, used, want)
	}
	for _, label := range want {
		if !used[label] {
			t.Errorf("%s: served by %v, want %v", client, used, want)
		}
	}
}

// TestKilledClientGivesItsPlacesBack: nobody says goodbye for it. Its idle time, and that for which a director waits for a
// client to come back, free what it had.
func TestKilledClientGivesItsPlacesBack(t *testing.T) {
	const streams = 300
	for _, wait := range []time.Duration{0, 20 * time.Second} {
		waits := setup{director: func(cfg *config.Director) { cfg.ResumeWait = wait }}
		stage(t, waits, func(t *testing.T, s *scenario) {
			for range streams {
				if _, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 0, Seed: 7}); err != nil {
					t.Fatal(err)
				}
			}
			taken := func() (n int) {
				for _, w := range s.registered() {
					n += w.Sessions
				}
				return n
			}
			time.Sleep(time.Second)
			if n := taken(); n != streams {
				t.Fatalf("%d places are taken, want %d", n, streams)
			}
			s.net.Host("client").Kill()
			time.Sleep(7 * time.Second)
			if n := taken(); (n != 0) != (wait > 0) {
				t.Errorf("%d places are taken seven seconds after the client was killed, and it is waited for %v", n, wait)
			}
			time.Sleep(wait)
			if n := taken(); n != 0 {
				t.Errorf("%d places are taken %v later", n, wait)
			}
			if s.logged.count("client lost") == 0 || s.logged.count("cancelled by the client") > 0 {
				t.Error("the director does not say that the client is lost")
			}
		})
	}
}

// TestDirectorDrains: what runs when a director is asked to stop ends as it should, also if its worker dies meanwhile;
// nothing new begins, and a client is left when its last stream has ended.
func TestDirectorDrains(t *testing.T) {
	const tokens = 100
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		idle, err := s.dial("idle")
		if err != nil {
			t.Fatal(err)
		}
		streams := []<-chan outcome{s.inBackground("p", tokens), s.inBackground("p", 2*tokens)}
		time.Sleep(tokens / 10 * interval)
		s.stopDirector()
		time.Sleep(100 * time.Millisecond)
		shutdown := &connswap.Error{Code: connswap.CodeShutdown}
		if _, err := idle.Generate(s.ctx, connswap.Request{}); !errors.Is(err, shutdown) {
			t.Errorf("a client without streams: %v", err)
		}
		stream, err := s.conn.Generate(s.ctx, connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if o := readStream(stream, nil); !errors.Is(o.err, shutdown) {
			t.Errorf("a new stream: %v", o.err)
		}
		if _, err := s.dial("new"); !errors.Is(err, shutdown) {
			t.Errorf("a new client: %v", err)
		}
		if err := s.status("/readyz", nil); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("readyz: %v", err)
		}
		s.workers[0].die(s.workers[0].host.Kill)
		for _, result := range streams {
			if o := <-result; o.err != nil || o.text != s.reference(int(o.tokens)) || o.tokens < tokens {
				t.Errorf("%d tokens, %v", o.tokens, o.err)
			}
		}
		time.Sleep(2 * time.Second)
		if _, err := s.conn.Generate(s.ctx, connswap.Request{}); !errors.Is(err, shutdown) {
			t.Errorf("after its last stream: %v", err)
		}
	})
}

// TestDrainHasItsTime: a stream that is longer is told; so are all when nobody is to wait for them.
func TestDrainHasItsTime(t *testing.T) {
	for name, test := range map[string]struct {
		hurry bool
		took  time.Duration
	}{"late": {false, 5 * time.Second}, "a second signal": {true, time.Second}} {
		t.Run(name, func(t *testing.T) {
			drain := func(cfg *config.Director) { cfg.DrainTimeout = 5 * time.Second }
			stage(t, setup{director: drain}, func(t *testing.T, s *scenario) {
				result := s.inBackground("p", 100_000)
				time.Sleep(time.Second)
				start := time.Now()
				s.stopDirector()
				if test.hurry {
					time.Sleep(time.Second)
					s.hurryDirector()
				}
				o := <-result
				if !errors.Is(o.err, &connswap.Error{Code: connswap.CodeShutdown}) || o.text != s.reference(int(o.tokens)) {
					t.Errorf("%d tokens, %v", o.tokens, o.err)
				}
				if took := time.Since(start); took.Round(100*time.Millisecond) != test.took {
					t.Errorf("told after %v, want %v", took, test.took)
				}
			})
		})
	}
}
