package sim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// TestRequestsRefused asks for more than the director allows: each is told what the limit is, and its connection
// goes on.
func TestRequestsRefused(t *testing.T) {
	s := setup{director: func(cfg *config.Director) { cfg.MaxPromptBytes, cfg.MaxTokens, cfg.MaxSessionBytes = 100, 50, 120 }}
	stage(t, s, func(t *testing.T, s *scenario) {
		for _, c := range []struct {
			request connswap.Request
			want    string
		}{
			{connswap.Request{Prompt: strings.Repeat("x", 101)}, "limit_exceeded: the prompt is longer than the 100 bytes"},
			{connswap.Request{Prompt: strings.Repeat("x", 1<<20)}, "limit_exceeded: the prompt is longer than the 100 bytes"},
			{connswap.Request{MaxTokens: 51}, "limit_exceeded: max_tokens is 51, this director allows 50"},
		} {
			stream, err := s.conn.Generate(s.ctx, c.request)
			if err == nil {
				for _, err = range stream.Tokens() {
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
		o := s.generate(0, nil)
		if o.err != nil || o.tokens == 0 || o.tokens >= 50 || len(o.text) > 120 {
			t.Errorf("a stream that reaches the director's bytes: %d tokens, %d bytes, %v", o.tokens, len(o.text), o.err)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	stage(t, setup{director: func(cfg *config.Director) { cfg.MaxConnections = 1 }}, func(t *testing.T, s *scenario) {
		_, err := s.dial("second")
		if e := new(connswap.Error); !errors.As(err, &e) || e.Code != connswap.CodeLimit {
			t.Errorf("a second connection: %v", err)
		}
		if o := s.generate(5, nil); o.err != nil {
			t.Errorf("the first one: %v", o.err)
		}
	})
}

// TestSwapLimit moves one stream again and again.
func TestSwapLimit(t *testing.T) {
	su := setup{
		director: func(cfg *config.Director) { cfg.MaxSwapsPerMinute = 3 },
		worker:   func(cfg *config.Worker) { cfg.FailureMode, cfg.FailureRecovery = "error", 100*time.Millisecond },
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		o := s.generate(200, func(sequence uint64, worker string) {
			if sequence%10 == 0 {
				s.worker(worker).failNow()
			}
		})
		e := new(connswap.Error)
		if !errors.As(o.err, &e) || e.Code != "swap_limit" || len(o.swaps) != 3 {
			t.Errorf("%d swaps, then %v", len(o.swaps), o.err)
		}
	})
}

// TestSameLabelTwice starts a second worker under the label of a live one.
func TestSameLabelTwice(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		cfg := s.workers[0].cfg
		other, err := worker.New(cfg, worker.Deps{Network: s.net.Host("elsewhere"), TLS: s.sources[identity.Worker], Log: s.logger("elsewhere")})
		if err != nil {
			t.Fatal(err)
		}
		s.wg.Go(func() { _ = other.Run(s.ctx) })
		time.Sleep(5 * time.Second) // in the bubble
		if n := len(s.registered()); n != 2 {
			t.Errorf("%d workers are registered", n)
		}
		for _, w := range s.registered() {
			if strings.Contains(w.UserAddr, s.net.Host("elsewhere").IP().String()) {
				t.Errorf("the second %s took the place of the first", w.Worker)
			}
		}
		if o := s.generate(5, nil); o.err != nil {
			t.Error(o.err)
		}
	})
}

// TestOtherVersions starts workers that claim another version of the protocol, older and newer, with their directors: each
// pair refuses the other, both say which versions there are, and nobody else notices.
func TestOtherVersions(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		for _, version := range []uint32{1, 4} {
			core, logs := observer.New(zapcore.WarnLevel)
			cfg, host := s.workers[0].cfg, s.net.Host(fmt.Sprint("worker-of-", version))
			cfg.Label = fmt.Sprint("worker-of-", version)
			other, err := worker.New(cfg, worker.Deps{Version: version, Network: host, TLS: s.sources[identity.Worker], Log: zap.New(core)})
			if err != nil {
				t.Fatal(err)
			}
			s.wg.Go(func() { _ = other.Run(s.ctx) })
			time.Sleep(5 * time.Second) // in the bubble
			words := fmt.Sprintf("version: worker speaks version %d, this director 3", version)
			complaints := logs.FilterMessage("not registered at director").All()
			if len(complaints) != 1 || !strings.Contains(fmt.Sprint(complaints[0].ContextMap()["error"]), words) {
				t.Errorf("worker-of-%d complains: %v, want once: %s", version, complaints, words)
			}
		}
		if n := s.logged.count("registration refused"); n == 0 {
			t.Error("the director does not say that it refused anybody")
		}
		if n := len(s.registered()); n != 2 {
			t.Errorf("%d workers are registered", n)
		}
		if o := s.generate(5, nil); o.err != nil {
			t.Error(o.err)
		}
	})
}

// TestDirectorOfAnotherVersion lets the cluster's workers meet a director that claims another version beside their own.
func TestDirectorOfAnotherVersion(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		core, logs := observer.New(zapcore.WarnLevel)
		cfg := config.DefaultDirector()
		cfg.ID = "newer"
		newer, err := director.New(cfg, director.Deps{Version: 4, Network: s.net.Host("newer"), TLS: s.sources[identity.Director], Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		s.wg.Go(func() { _ = newer.Run(s.ctx) })
		p := s.work(func(cfg *config.Worker) {
			label := cfg.Label
			*cfg = s.workers[0].cfg
			cfg.Label, cfg.Directors = label, append(cfg.Directors[:1:1], "newer:61001")
		})
		o := s.generate(40, func(sequence uint64, worker string) {
			if sequence == 20 {
				for _, w := range s.workers[:2] { // only the one that both directors know is left
					w.die(w.host.Kill)
				}
			}
		})
		if o.err != nil || o.text != counted(40) {
			t.Errorf("%d tokens, %v", o.tokens, o.err)
		}
		refused := logs.FilterMessage("registration refused").All()
		if len(refused) == 0 || refused[0].ContextMap()["worker"] != p.cfg.Label ||
			!strings.Contains(fmt.Sprint(refused[0].ContextMap()["error"]), "worker speaks version 3, this director 4") {
			t.Errorf("the other director refused %v", refused)
		}
	})
}

// TestMixedEngines lets the only worker with the stream's engine die: another engine must not go on.
func TestMixedEngines(t *testing.T) {
	stage(t, setup{director: func(cfg *config.Director) { cfg.WorkerWait = 10 * time.Second }}, func(t *testing.T, s *scenario) {
		s.workers[1].die(s.workers[1].host.Kill)
		s.work(func(cfg *config.Worker) { cfg.Engine = "markov" })
		o := s.generate(100, func(sequence uint64, worker string) {
			if sequence == 20 {
				p := s.worker(worker)
				p.die(p.host.Kill)
			}
		})
		e := new(connswap.Error)
		if !errors.As(o.err, &e) || e.Code != "no_worker" || len(o.waiting) != 1 || !strings.Contains(o.waiting[0].Reason, "engine") {
			t.Errorf("%v, told to wait: %+v", o.err, o.waiting)
		}
	})
}

// TestWorkerShutsDown stops the serving worker in good order: it says so, and the stream moves at once.
func TestWorkerShutsDown(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		o := s.generate(40, func(sequence uint64, worker string) {
			if sequence == 10 {
				s.wg.Go(func() { s.worker(worker).stop() })
			}
		})
		if o.err != nil || o.text != counted(40) || len(o.swaps) != 1 || o.swaps[0].Gap > interval+10*time.Millisecond {
			t.Errorf("%d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
	})
}

type registered struct {
	Worker    string `json:"worker"`
	UserAddr  string `json:"user_addr"`
	Sessions  int    `json:"sessions"`
	Available bool   `json:"available"`
	Connected bool   `json:"connected"`
	Models    []struct {
		Fingerprint string `json:"fingerprint"`
		Class       string `json:"class"`
	} `json:"models"`
}

func (c *cluster) registered() []registered {
	var status struct {
		Workers []registered `json:"workers"`
	}
	if err := c.status("/v1/workers", &status); err != nil {
		c.t.Error(err)
	}
	return status.Workers
}
