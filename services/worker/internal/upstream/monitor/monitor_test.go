package monitor_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/monitor"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// world is a Monitor of a scripted server, in a bubble, and what it has told.
type world struct {
	testing.TB
	*monitor.Monitor
	server *servertest.Server
	client *api.Server
	own    atomic.Int64
	chunks atomic.Uint64

	mu      sync.Mutex
	served  [][]string // names and fingerprints
	reasons []string   // why nothing is to be taken, each once in a row; empty for no reason
}

// watching runs a test with a Monitor. Afterwards nothing of it runs.
func watching(t *testing.T, kind servertest.Kind, options servertest.Options, offers []monitor.Offer, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer network.Close()
		host := network.Host("server")
		w := &world{TB: t, server: servertest.New(kind, options)}
		if err := w.server.Serve(func() (net.Listener, error) { return host.ListenStream(":8000") }); err != nil {
			t.Fatal(err)
		}
		defer w.server.Close()
		server, err := api.New(api.Config{
			URL: "http://server:8000", Timeouts: api.Timeouts{Connect: 2 * time.Second, Headers: 10 * time.Second, First: time.Minute, Silence: 30 * time.Second},
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				return network.Host("worker").DialStream(ctx, address)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		w.client = server
		w.Monitor = monitor.New(monitor.Config{
			Server: server, Where: "http://server:8000", Offers: offers, Log: zap.NewNop(), Serve: w.serve, Withhold: w.withhold,
			Own: func() int { return int(w.own.Load()) }, Chunks: w.chunks.Load,
			Engine: func(name string, report func(error)) *upstream.Engine {
				return upstream.New(server, upstream.Options{Name: name, Report: report})
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Monitor.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		test(w)
	})
}

func (w *world) serve(engines []*upstream.Engine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, e := range engines {
		all = append(all, e.Name()+" "+e.Fingerprint())
	}
	w.served = append(w.served, all)
}

func (w *world) withhold(reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.reasons); n == 0 || w.reasons[n-1] != reason {
		w.reasons = append(w.reasons, reason)
	}
}

// models returns which models the worker had, one after the other.
func (w *world) models() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.served)
}

// within waits until the server is in a state, and returns for how long.
func (w *world) within(limit time.Duration, state string) time.Duration {
	w.Helper()
	start := time.Now()
	for w.Status().State != state {
		if time.Since(start) > limit {
			w.Fatalf("%v later it is %+v, want it %s", limit, w.Status(), state)
		}
		time.Sleep(10 * time.Millisecond) // of the bubble
	}
	return time.Since(start)
}

// stays checks that the server is in a state all the time.
func (w *world) stays(d time.Duration, state string) {
	w.Helper()
	for range d / (10 * time.Millisecond) {
		if s := w.Status(); s.State != state {
			w.Fatalf("it is %+v, want it %s", s, state)
		}
		time.Sleep(10 * time.Millisecond) // of the bubble
	}
}

// says checks what the worker takes nothing for now.
func (w *world) says(part string) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := w.reasons[len(w.reasons)-1]; !strings.Contains(last, part) || (part == "") != (last == "") {
		w.Errorf("the worker says %q, want %q", last, part)
	}
}

// TestReady: a server that is there is used, all its models, as they were measured.
func TestReady(t *testing.T) {
	watching(t, servertest.VLLM, servertest.Options{Model: "m", Version: "0.32.1"}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		w.says("")
		s := w.Status()
		if s.Kind != api.VLLM || s.Version != "0.32.1" || s.Where != "http://server:8000" || s.Breaker != "closed" || s.Probes != 1 ||
			len(s.Models) != 1 || s.Models[0].Name != "m" || s.Models[0].Abilities.Class != probe.Exact || s.Models[0].Fingerprint == "" {
			w.Errorf("got %+v", s)
		}
		if got := w.models(); len(got) != 1 || !slices.Equal(got[0], []string{"m " + s.Models[0].Fingerprint}) {
			w.Errorf("the worker has %v", got)
		}
		if line := w.Line(); line != "vllm 0.32.1 at http://server:8000" {
			w.Errorf("the line is %q", line)
		}
		w.stays(10*time.Minute, "ready")
		if s := w.Status(); s.Probes != 1 || len(w.models()) != 1 {
			w.Errorf("nothing changed, and it was tried %d times, and told %d times", s.Probes, len(w.models()))
		}
	})
}

// TestStarting: a server that loads its model is waited for.
func TestStarting(t *testing.T) {
	watching(t, servertest.LlamaCPP, servertest.Options{Loading: true}, nil, func(w *world) {
		w.within(time.Second, "starting")
		w.stays(time.Minute, "starting")
		w.says("server http://server:8000 is loading a model: ")
		if s := w.Status(); s.Breaker != "closed" || len(w.models()) != 0 {
			w.Errorf("got %+v", s)
		}
		w.server.SetLoading(false)
		w.within(5*time.Second, "ready")
		w.says("")
	})
}

// TestDies: a server that dies is found out by the next look, at once where an attempt says so, and used when it is back, without being
// measured anew.
func TestDies(t *testing.T) {
	watching(t, servertest.SGLang, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		for _, reported := range []bool{false, true} {
			time.Sleep(time.Minute) // so that it does not flap
			w.server.Kill()
			limit := 3 * time.Second
			if reported {
				limit = 100 * time.Millisecond
				w.Report(&api.Error{Fault: api.Gone, Message: "connection refused"})
			}
			w.within(limit, "lost")
			w.says("server http://server:8000 does not answer: gone:")
			w.says("; tries again within 2s")
			w.stays(10*time.Second, "lost")
			if err := w.server.Start(); err != nil {
				w.Fatal(err)
			}
			w.within(5*time.Second, "ready")
			w.says("")
		}
		if s := w.Status(); s.Probes != 1 || len(w.models()) != 1 || s.Breaker != "closed" || s.Faults["gone"] != 1 {
			w.Errorf("got %+v, the worker was told %v", s, w.models())
		}
	})
}

// TestHangs: a server that is stopped answers nothing.
func TestHangs(t *testing.T) {
	watching(t, servertest.Ollama, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		w.server.Hang()
		w.within(8*time.Second, "lost")
		w.says("does not answer: no answer within 5s")
		w.server.Resume()
		w.within(5*time.Second, "ready")
	})
}

// TestAnother: what comes back as something else is another model, and is measured anew.
func TestAnother(t *testing.T) {
	watching(t, servertest.VLLM, servertest.Options{Model: "m", Version: "0.32.1"}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		w.server.Kill()
		w.within(3*time.Second, "lost")
		w.server.Upgrade("0.33.0", "other", "")
		if err := w.server.Start(); err != nil {
			w.Fatal(err)
		}
		w.within(10*time.Second, "ready")
		if got := w.models(); len(got) != 2 || got[0][0] == got[1][0] {
			w.Errorf("the worker was told %v", got)
		}
		if s := w.Status(); s.Version != "0.33.0" || s.Probes != 2 {
			w.Errorf("got %+v", s)
		}
		w.server.Upgrade("", "another", "") // without having been away
		w.stays(2*time.Minute, "ready")
		if got := w.models(); len(got) != 3 || got[1][0] == got[2][0] {
			w.Errorf("the worker was told %v", got)
		}
		time.Sleep(5 * time.Second)
		w.server.Upgrade("", "yet another", "")
		w.Report(&api.Error{Fault: api.Denied}) // such as for a model that is not there any more
		w.stays(5*time.Second, "ready")
		if got := w.models(); len(got) != 4 || got[2][0] == got[3][0] {
			w.Errorf("the worker was told %v", got)
		}
	})
}

// TestFlaps: a server that is lost again and again rests, each time longer, and has to make a token to be used again.
func TestFlaps(t *testing.T) {
	watching(t, servertest.LlamaCPP, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		flap := func() {
			w.server.Kill()
			time.Sleep(3 * time.Second)
			if err := w.server.Start(); err != nil {
				w.Fatal(err)
			}
		}
		for range 3 {
			flap()
			w.within(5*time.Second, "ready")
		}
		w.server.Kill()
		w.within(3*time.Second, "resting")
		w.says("; it rests, and is tried in 2s")
		if s := w.Status(); s.Breaker != "open" {
			w.Errorf("the breaker is %s", s.Breaker)
		}
		if err := w.server.Start(); err != nil {
			w.Fatal(err)
		}
		w.server.Fail(servertest.Fault{Kind: servertest.InternalError, Times: servertest.Forever}) // it is there, and makes nothing
		w.stays(1500*time.Millisecond, "resting")
		time.Sleep(time.Second)
		w.says("has rested, and makes no token: failed:")
		w.says("is tried in 4s")
		w.stays(3*time.Second, "resting")
		w.server.Heal()
		w.within(10*time.Second, "ready")
		if s := w.Status(); s.Breaker != "closed" {
			w.Errorf("the breaker is %s", s.Breaker)
		}
	})
}

// TestAttemptsFail: a server that says it is well, and fails attempt after attempt, rests; attempts that are declined or rejected mean
// nothing.
func TestAttemptsFail(t *testing.T) {
	watching(t, servertest.OpenAI, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		for range 20 {
			time.Sleep(time.Second)
			w.Report(&api.Error{Fault: api.Busy})
			w.Report(&api.Error{Fault: api.Denied})
		}
		w.stays(5*time.Second, "ready")
		for range 5 {
			time.Sleep(time.Second)
			w.Report(&api.Error{Fault: api.Broken})
		}
		w.within(100*time.Millisecond, "resting")
		w.says("fails attempt after attempt; it rests")
		w.within(5*time.Second, "ready")
		w.Report(nil)
		w.Report(errors.New("anything else"))
		s := w.Status()
		if s.Faults["busy"] != 20 || s.Faults["denied"] != 20 || s.Faults["broken"] != 5 || s.Faults["failed"] != 1 || s.Breaker != "closed" {
			w.Errorf("got %+v", s)
		}
	})
}

// TestLies: vLLM is well by its own word when what makes the tokens is dead. A token is tried, unless one came anyway.
func TestLies(t *testing.T) {
	dead := servertest.Fault{Kind: servertest.SilentBefore, Times: servertest.Forever}
	watching(t, servertest.VLLM, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		w.server.Fail(dead)
		w.within(time.Minute, "lost")
		w.stays(time.Minute, "lost")
		w.server.Heal()
		w.within(15*time.Second, "ready")
	})
	watching(t, servertest.VLLM, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		made := w.server.Tokens()
		for range 50 { // until what it is would be asked again
			w.chunks.Add(1)
			time.Sleep(time.Second)
		}
		if n := w.server.Tokens() - made; n != 0 {
			w.Errorf("%d tokens were tried, beside those that come", n)
		}
	})
}

// TestDiesMeanwhile: while it is found out what a server is, it is not lost sight of.
func TestDiesMeanwhile(t *testing.T) {
	watching(t, servertest.LlamaCPP, servertest.Options{}, nil, func(w *world) {
		w.within(10*time.Second, "ready")
		w.server.Fail(servertest.Fault{Kind: servertest.SilentBefore, Times: servertest.Forever})
		w.Probe()
		w.stays(15*time.Second, "ready") // it may be slow
		w.server.SetLoading(true)
		w.within(3*time.Second, "starting")
		w.server.Heal()
		w.server.SetLoading(false)
		w.within(10*time.Second, "ready")
		if s := w.Status(); s.Probes < 3 {
			w.Errorf("what was demanded was tried %d times", s.Probes)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, reason := range w.reasons {
			if strings.Contains(reason, "context") {
				w.Errorf("the worker said %q", reason)
			}
		}
	})
}

// TestDemand: a new measurement finds what has changed. A server that is busy keeps what was measured before.
func TestDemand(t *testing.T) {
	watching(t, servertest.OpenAI, servertest.Options{}, nil, func(w *world) {
		class := func() probe.Class { return w.Status().Models[0].Abilities.Class }
		w.within(10*time.Second, "ready")
		if class() != probe.Replayable {
			w.Fatalf("got %+v", w.Status())
		}
		w.server.Fail(servertest.Fault{Kind: servertest.TooManyRequests, Skip: 1}) // what it is, it says
		w.Probe()
		w.stays(10*time.Second, "ready")
		if class() != probe.Replayable || w.Status().Probes != 2 || len(w.models()) != 1 {
			w.Errorf("busy: %+v", w.Status())
		}
		w.server.Fail(servertest.Fault{Kind: servertest.TooManyRequests, Times: servertest.Forever})
		w.Probe()
		w.stays(10*time.Second, "ready")
		if w.Status().Probes != 2 {
			w.Errorf("too busy to say what it is: %+v", w.Status())
		}
		w.server.Heal()
		w.server.Fail(servertest.Fault{Kind: servertest.Diverge, At: 5, Skip: 2})
		w.stays(10*time.Second, "ready")
		if class() != probe.Text || w.Status().Probes != 3 || len(w.models()) != 2 {
			w.Errorf("it repeats nothing any more: %+v", w.Status())
		}
	})
}

// TestOffers: models go by other names, and one that the server has no more is none of the worker's.
func TestOffers(t *testing.T) {
	offers := []monitor.Offer{{Name: "mine", At: "m"}, {Name: "mine", At: "m"}, {Name: "not\nprinted", At: "m"}, {Name: "none", At: "nowhere"}}
	watching(t, servertest.VLLM, servertest.Options{Model: "m"}, offers, func(w *world) {
		w.within(10*time.Second, "ready")
		if got := w.models(); len(got) != 1 || len(got[0]) != 1 || !strings.HasPrefix(got[0][0], "mine ") {
			w.Errorf("the worker was told %v", got)
		}
	})
	watching(t, servertest.VLLM, servertest.Options{Model: "m"}, offers[2:], func(w *world) {
		w.within(time.Second, "lost")
		w.says("has none of the models that are offered (CONNECTION_SWAP_WORKER_UPSTREAM_MODELS); it has: m")
		if got := w.models(); len(got) != 0 {
			w.Errorf("the worker was told %v", got)
		}
	})
}

// TestOthers: requests of others count as load, those of the worker do not.
func TestOthers(t *testing.T) {
	watching(t, servertest.VLLM, servertest.Options{TokenInterval: time.Second}, nil, func(w *world) {
		w.within(5*time.Minute, "ready")
		w.own.Store(2)
		ctx, cancel := context.WithCancel(w.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		w.ask(ctx, &running, 5)
		time.Sleep(5 * time.Second)
		if s := w.Status(); w.Others() != 3 || !s.Load.Known || s.Load.Running+s.Load.Waiting != 5 {
			w.Errorf("%d others, %+v", w.Others(), s.Load)
		}
		cancel()
		time.Sleep(5 * time.Second)
		if w.Others() != 0 {
			w.Errorf("%d others that are gone", w.Others())
		}
	})
}

// TestQueue: a server in which requests wait has no token in time, and is not dead.
func TestQueue(t *testing.T) {
	watching(t, servertest.VLLM, servertest.Options{TokenInterval: 500 * time.Millisecond, Capacity: 1}, nil, func(w *world) {
		w.within(5*time.Minute, "ready")
		ctx, cancel := context.WithCancel(w.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		w.ask(ctx, &running, 3)
		w.stays(5*time.Minute, "ready")
		if s := w.Status(); s.Load.Waiting == 0 {
			w.Errorf("nothing waits: %+v", s)
		}
	})
}

// ask has some requests run until ctx ends, new ones in place of those that end.
func (w *world) ask(ctx context.Context, running *sync.WaitGroup, n int) {
	for range n {
		running.Go(func() {
			for ctx.Err() == nil {
				call := api.Call{Model: w.Status().Models[0].At, API: wire.APICompletions, Prompt: "Once [[length 300]]", MaxTokens: 300, Choices: 1}
				stream, err := w.client.Generate(ctx, call)
				if err != nil {
					w.Error(err)
					return
				}
				for err == nil {
					_, err = stream.Next() // it may wait for too long
				}
				stream.Close()
			}
		})
	}
}
