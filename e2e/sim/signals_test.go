package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
)

// interval between tokens in these tests.
const interval = 50 * time.Millisecond

// scenario is a cluster of two workers with one client, on a quiet network.
type scenario struct {
	*cluster
	conn *connswap.Conn
}

type setup struct {
	net      simtest.Options
	director func(*config.Director)
	worker   func(*config.Worker)
	network  func(quicnet.Network) quicnet.Network // of the director
	engine   engine.Engine
}

// stage runs play in a bubble, with the cluster up and the client connected.
func stage(t *testing.T, s setup, play func(t *testing.T, s *scenario)) {
	t.Helper()
	stageAs(t, s, func(*testing.T, *scenario) {}, play)
}

// stageAs is stage with something to be done before anything starts.
func stageAs(t *testing.T, s setup, before, play func(t *testing.T, s *scenario)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if s.net.Path.Delay == 0 {
			s.net.Path.Delay = time.Millisecond
		}
		c := newCluster(t, 1, s.net, t.Logf)
		defer c.close()
		c.network, c.engine = s.network, s.engine
		before(t, &scenario{cluster: c})
		c.direct(s.director)
		for range 2 {
			c.work(func(cfg *config.Worker) {
				cfg.TokenInterval, cfg.Engine = interval, "counter"
				cfg.FailureMin, cfg.FailureMax = time.Hour, time.Hour
				if s.worker != nil {
					s.worker(cfg)
				}
			})
			time.Sleep(100300 * time.Microsecond) // in the bubble: they register one after the other
		}
		time.Sleep(time.Second) // until all are connected
		conn, err := c.dial("client")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the run is over
		play(t, &scenario{cluster: c, conn: conn})
	})
}

// outcome is what a client saw of one stream.
type outcome struct {
	tokens  uint64
	text    string
	workers []string
	swaps   []connswap.Swapped
	waiting []connswap.Waiting
	resumes []connswap.Resumed
	err     error
}

// generate reads one stream to its end; at is called after each token.
func (s *scenario) generate(tokens int, at func(sequence uint64, worker string)) outcome {
	var o outcome
	stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: uint32(tokens), Seed: 7})
	if err != nil {
		return outcome{err: err}
	}
	for event, err := range stream.Events() {
		if err != nil {
			o.err = err
			break
		}
		switch e := event.(type) {
		case connswap.Assigned:
			o.workers = append(o.workers, e.Worker)
		case connswap.Swapped:
			o.swaps = append(o.swaps, e)
			o.workers = append(o.workers, e.To)
		case connswap.Waiting:
			o.waiting = append(o.waiting, e)
		case connswap.Resumed:
			o.resumes = append(o.resumes, e)
		case connswap.Token:
			o.tokens, o.text = e.Sequence, o.text+e.Text
			if at != nil {
				at(e.Sequence, e.Worker)
			}
		}
	}
	return o
}

// worker returns the process with that label.
func (s *scenario) worker(label string) *process {
	for _, p := range s.workers {
		if p.cfg.Label == label {
			return p
		}
	}
	s.t.Fatalf("no worker %q", label)
	return nil
}

// TestSignals lets a worker fail in each way that only one signal notices, and checks that it was this signal,
// how long it took, and that the client's text has no seam.
func TestSignals(t *testing.T) {
	const tokens = 40
	mode := func(mode string) func(*config.Worker) {
		return func(cfg *config.Worker) { cfg.FailureMode = mode }
	}
	for _, c := range []struct {
		name   string
		setup  setup
		break_ func(s *scenario, p *process)
		cause  string
		within time.Duration // from the fault to the next token, the interval not counted
	}{
		{
			name: "error frame", setup: setup{worker: mode("error")},
			break_: func(_ *scenario, p *process) { p.failNow() },
			cause:  "worker reported failure", within: 10 * time.Millisecond,
		},
		{
			name: "tether", setup: setup{net: simtest.Options{Silent: true}},
			break_: func(_ *scenario, p *process) { p.die(p.host.Kill) },
			cause:  "worker process died (tether closed)", within: 10 * time.Millisecond,
		},
		{
			name: "connection refused", setup: setup{network: func(nw quicnet.Network) quicnet.Network { return noTether{nw} }},
			break_: func(_ *scenario, p *process) { p.die(p.host.Kill) },
			cause:  "worker process died (connection refused)", within: 200 * time.Millisecond,
		},
		{
			name:   "link idle, machine gone",
			break_: func(_ *scenario, p *process) { p.die(p.host.Crash) },
			cause:  "worker unreachable (no packets)", within: 400 * time.Millisecond,
		},
		{
			name:   "link idle, network cut",
			break_: func(_ *scenario, p *process) { p.host.Isolate() },
			cause:  "worker unreachable (no packets)", within: 400 * time.Millisecond,
		},
		{
			name:   "link idle, process stopped",
			break_: func(_ *scenario, p *process) { p.host.Freeze() },
			cause:  "worker unreachable (no packets)", within: 400 * time.Millisecond,
		},
		{
			name: "no progress", setup: setup{worker: mode("hang")},
			break_: func(_ *scenario, p *process) { p.failNow() },
			cause:  "worker hangs (no progress)", within: 600 * time.Millisecond,
		},
		{
			name: "packets vanish", setup: setup{worker: mode("drop")},
			break_: func(_ *scenario, p *process) { p.failNow() },
			cause:  "worker unreachable (no packets)", within: 400 * time.Millisecond,
		},
		{
			name: "slow", setup: setup{worker: mode("slow"), director: func(cfg *config.Director) { cfg.TokenTimeoutMin = 300 * time.Millisecond }},
			break_: func(_ *scenario, p *process) { p.failNow() },
			cause:  "stream stuck (no token)", within: 500 * time.Millisecond,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			stage(t, c.setup, func(t *testing.T, s *scenario) {
				var broken, resumed time.Time
				o := s.generate(tokens, func(sequence uint64, worker string) {
					if !broken.IsZero() && resumed.IsZero() {
						resumed = time.Now()
					}
					if sequence == 15 {
						c.break_(s, s.worker(worker))
						broken = time.Now()
					}
				})
				if o.err != nil || o.tokens != tokens || o.text != counted(tokens) {
					t.Fatalf("got %d tokens, %v: %q", o.tokens, o.err, o.text)
				}
				if len(o.swaps) != 1 || o.swaps[0].Cause != c.cause || o.swaps[0].Sequence < 15 {
					t.Fatalf("swaps: %+v, want one, because %q", o.swaps, c.cause)
				}
				if gap := resumed.Sub(broken) - interval; gap > c.within {
					t.Errorf("the gap was %v, allowed are %v", gap, c.within)
				}
			})
		})
	}
}

// counted is the text of engine counter.
func counted(tokens int) string {
	e, err := worker.Engine("counter")
	if err != nil {
		return err.Error()
	}
	text, err := textOf(e, engine.Request{Prompt: "p", Seed: 7, MaxTokens: tokens})
	if err != nil {
		return err.Error()
	}
	return text
}

// noTether is a network on which no stream can be dialled.
type noTether struct{ quicnet.Network }

func (noTether) DialStream(context.Context, string) (net.Conn, error) {
	return nil, errors.New("a firewall lets only UDP pass")
}

// TestOneStuckGeneration blocks one generation on a healthy worker: only that stream moves.
func TestOneStuckGeneration(t *testing.T) {
	stuck := &stuckOnce{Engine: mustEngine(t, "counter"), prompt: "p", at: 20}
	stage(t, setup{engine: stuck}, func(t *testing.T, s *scenario) {
		var others []<-chan outcome
		for range 3 {
			others = append(others, s.inBackground("other", 60))
		}
		o := s.generate(60, nil)
		if o.err != nil || o.text != counted(60) || len(o.swaps) != 1 || o.swaps[0].Cause != "stream stuck (no token)" {
			t.Errorf("stuck stream: %d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
		if gap := o.swaps[0].Gap; gap < 950*time.Millisecond || gap > 1100*time.Millisecond {
			t.Errorf("gap %v, want the least deadline of 1s", gap)
		}
		for _, other := range others {
			if o := <-other; o.err != nil || len(o.swaps) != 0 {
				t.Errorf("a healthy stream: %v, swaps %+v", o.err, o.swaps)
			}
		}
	})
}

func (s *scenario) inBackground(prompt string, tokens int) <-chan outcome {
	done := make(chan outcome, 1)
	s.wg.Go(func() {
		stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: prompt, MaxTokens: uint32(tokens)})
		if err != nil {
			done <- outcome{err: err}
			return
		}
		var o outcome
		for event, err := range stream.Events() {
			if err != nil {
				o.err = err
			}
			switch e := event.(type) {
			case connswap.Token:
				o.tokens, o.text = e.Sequence, o.text+e.Text
			case connswap.Swapped:
				o.swaps = append(o.swaps, e)
			}
		}
		done <- o
	})
	return done
}

func mustEngine(t *testing.T, name string) engine.Engine {
	e, err := worker.Engine(name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// stuckOnce blocks the first generation for one prompt at one token, until it is closed.
type stuckOnce struct {
	engine.Engine
	prompt string
	at     int
	done   bool // the bubble runs one generation for this prompt at a time
}

func (e *stuckOnce) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	g, err := e.Engine.Open(ctx, req, prefix, progress)
	if err != nil || req.Prompt != e.prompt || e.done {
		return g, err
	}
	return &stuckGeneration{Generation: g, engine: e, left: e.at - len(prefix)}, nil
}

type stuckGeneration struct {
	engine.Generation
	engine *stuckOnce
	left   int
}

func (g *stuckGeneration) Next(ctx context.Context) (engine.Chunk, error) {
	if g.left == 0 {
		g.engine.done = true
		<-ctx.Done()
		return engine.Chunk{}, ctx.Err()
	}
	g.left--
	return g.Generation.Next(ctx)
}

// TestPoison serves a request that kills whichever worker opens it.
func TestPoison(t *testing.T) {
	s := setup{engine: poisonous{Engine: mustEngine(t, "counter")}}
	stage(t, s, func(t *testing.T, s *scenario) {
		healthy := s.inBackground("healthy", 200)
		stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "poison", MaxTokens: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, err = range stream.Events() {
			if err != nil {
				break
			}
		}
		var e *connswap.Error
		if !errors.As(err, &e) || e.Code != "workers_died" || !strings.Contains(e.Message, "3 workers in a row") {
			t.Errorf("poison ended with %v", err)
		}
		if o := <-healthy; o.err != nil || o.tokens != 200 {
			t.Errorf("healthy stream: %d tokens, %v", o.tokens, o.err)
		}
	})
}

// poisonous fails to open one prompt, as an engine does that the request crashes.
type poisonous struct{ engine.Engine }

func (e poisonous) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	if req.Prompt == "poison" {
		return nil, errors.New("segmentation fault, as it were")
	}
	return e.Engine.Open(ctx, req, prefix, progress)
}

// TestNobodyLeft takes all workers away: streams wait, are told so, and go on when one is back; or end in an
// error when the time is over.
func TestNobodyLeft(t *testing.T) {
	for _, c := range []struct {
		away time.Duration
		fail bool
	}{{20 * time.Second, false}, {70 * time.Second, true}} {
		t.Run(fmt.Sprint(c.away), func(t *testing.T) {
			stage(t, setup{}, func(t *testing.T, s *scenario) {
				start := time.Now()
				o := s.generate(40, func(sequence uint64, _ string) {
					if sequence != 10 {
						return
					}
					for _, p := range s.workers {
						p.die(p.host.Kill)
						s.wg.Go(func() { s.sleep(c.away); p.restart() })
					}
				})
				if len(o.waiting) != 1 || o.waiting[0].Reason == "" || o.waiting[0].Timeout != time.Minute {
					t.Errorf("told to wait: %+v", o.waiting)
				}
				var e *connswap.Error
				switch {
				case c.fail && (!errors.As(o.err, &e) || e.Code != "no_worker"):
					t.Errorf("ended after %v with %v", time.Since(start), o.err)
				case !c.fail && (o.err != nil || o.text != counted(40) || len(o.swaps) != 1):
					t.Errorf("%d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
				}
			})
		})
	}
}

// TestRefusedWhileRecovering fails one worker after the other, so that the second one takes what the first one
// had, and nothing goes to a worker that recovers.
func TestRefusedWhileRecovering(t *testing.T) {
	stage(t, setup{worker: func(cfg *config.Worker) { cfg.FailureMode = "error" }}, func(t *testing.T, s *scenario) {
		var recovering atomic.Value
		o := s.generate(300, func(sequence uint64, worker string) {
			if worker == recovering.Load() {
				t.Fatalf("token %d comes from %s, which recovers", sequence, worker)
			}
			if sequence == 20 {
				recovering.Store(worker)
				s.worker(worker).failNow()
				s.wg.Go(func() { s.sleep(9 * time.Second); recovering.Store("") }) // the default recovery is 10 s
			}
			if sequence == 250 {
				s.worker(worker).failNow()
			}
		})
		if o.err != nil || o.text != counted(300) || len(o.swaps) != 2 {
			t.Errorf("%d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
	})
}
