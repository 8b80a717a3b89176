package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
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

// TestKilledClientGivesItsPlacesBack: nobody says goodbye for it, and its idle time frees what it had.
func TestKilledClientGivesItsPlacesBack(t *testing.T) {
	const streams = 300
	stage(t, setup{}, func(t *testing.T, s *scenario) {
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
		if n := taken(); n != 0 {
			t.Errorf("%d places are taken seven seconds after the client was killed", n)
		}
		if s.logged.count("client lost") == 0 || s.logged.count("cancelled by the client") > 0 {
			t.Error("the director does not say that the client is lost")
		}
	})
}
