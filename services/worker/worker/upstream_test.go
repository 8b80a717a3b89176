package worker_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// beside is a worker beside a scripted inference server. The server is not there before the test starts it.
func beside(t *testing.T, kind servertest.Kind, options servertest.Options, change func(*config.Worker), deps worker.Deps, test func(t *testing.T, b *bench, s *servertest.Server)) {
	t.Helper()
	cfg := settings()
	cfg.Engine, cfg.UpstreamURL, cfg.TokenInterval = config.Upstream, "http://server:8000", config.DefaultWorker().TokenInterval
	if change != nil {
		change(&cfg)
	}
	run(t, cfg, deps, func(t *testing.T, b *bench) {
		host, s := b.Net.Host("server"), servertest.New(kind, options)
		var there bool
		err := s.Serve(func() (net.Listener, error) {
			if !there {
				there = true
				return nil, net.ErrClosed
			}
			return host.ListenStream(":8000")
		})
		if err == nil {
			t.Fatal("it is there already")
		}
		test(t, b, s)
		for _, n := range b.nodes {
			n.stop()
		}
		time.Sleep(time.Second)
		s.Close()
		time.Sleep(time.Second) // until connections know
	})
}

func begin(t *testing.T, s *servertest.Server) {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
}

// until waits for a status of the worker at a link.
func until(t *testing.T, l *fakedirector.Link, available bool, reason string) {
	t.Helper()
	for {
		got := fakedirector.Next[*wirepb.WorkerStatus](t, l)
		if got.GetAvailable() == available && strings.Contains(got.GetReason(), reason) {
			return
		}
	}
}

// TestUpstreamRegisters: the worker registers when its server is there, with what the server has, and says why it is not ready until
// then.
func TestUpstreamRegisters(t *testing.T) {
	beside(t, servertest.VLLM, servertest.Options{Model: "m", Version: "0.32.1"}, nil, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		time.Sleep(time.Minute)
		if n := len(b.mgmt.Registrations); n != 0 {
			t.Errorf("registered %d times without a server", n)
		}
		if code, body := b.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "server http://server:8000 does not answer") {
			t.Errorf("/readyz: %d %s", code, body)
		}
		if got := b.status(t); got.Available || got.Server == nil || got.Server.State != "lost" || !strings.Contains(got.Reason, "does not answer") || len(got.Models) != 0 {
			t.Errorf("got %+v", got)
		}
		begin(t, s)
		got := <-b.mgmt.Registrations
		if m := got.GetModels(); len(m) != 1 || m[0].GetName() != "m" || m[0].GetClass() != "exact" || m[0].GetFingerprint() == "" ||
			m[0].GetContinuity() != wire.ContinuityExact || got.GetServer() != "vllm 0.32.1 at http://server:8000" {
			t.Errorf("registered as %v", got)
		}
		l, welcome := b.Open(t, b.from, userAddr)
		defer l.Close()
		if !welcome.GetAvailable() {
			t.Errorf("got %v", welcome)
		}
		if code, body := b.get(t, "/readyz"); code != http.StatusOK {
			t.Errorf("/readyz: %d %s", code, body)
		}
		if got := b.status(t); !got.Available || got.Server.Version != "0.32.1" || got.Server.Breaker != "closed" ||
			len(got.Server.Models) != 1 || got.Server.Models[0].Abilities.Seen == "" {
			t.Errorf("got %+v, %+v", got, got.Server)
		}
	})
}

// TestUpstreamServes: a stream is that of the server, as fast as it makes it.
func TestUpstreamServes(t *testing.T) {
	beside(t, servertest.VLLM, servertest.Options{TokenInterval: 10 * time.Millisecond}, nil, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		<-b.mgmt.Registrations
		l, _ := b.Open(t, b.from, userAddr)
		defer l.Close()
		ask := attach(1, 1, 100)
		ask.Request.Prompt = "river [[length 100]]"
		start := time.Now()
		l.Send(t, ask)
		whole, end := stream(t, l, 1, 1, nil)
		if took := time.Since(start); len(whole) < 50 || took > 2*time.Second || end.GetFinishReason() == "" {
			t.Errorf("%d chunks in %v, %v", len(whole), took, end)
		}
		again := attach(2, 1, 100)
		again.Request.Prompt = ask.GetRequest().GetPrompt()
		l.Send(t, again)
		if same, _ := stream(t, l, 2, 1, nil); !bytes.Equal(bytes.Join(same, nil), bytes.Join(whole, nil)) {
			t.Error("the same seed has another text")
		}
	})
}

// TestUpstreamDies: the worker takes nothing while its server is away, and says so; it takes streams when that is back, and registers
// anew where it is another one.
func TestUpstreamDies(t *testing.T) {
	beside(t, servertest.LlamaCPP, servertest.Options{}, nil, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		first := <-b.mgmt.Registrations
		l, _ := b.Open(t, b.from, userAddr)
		defer l.Close()
		s.Kill()
		until(t, l, false, "server http://server:8000 does not answer")
		l.Send(t, attach(1, 1, 10))
		refused(t, l, 1, 1, wire.CodeUnavailable)
		begin(t, s)
		until(t, l, true, "")
		if n := len(b.mgmt.Registrations); n != 0 {
			t.Errorf("it is the same, and registered %d times more", n)
		}
		s.Kill()
		until(t, l, false, "does not answer")
		s.Upgrade("b9999", "another", "")
		begin(t, s)
		until(t, l, true, "")
		if next := <-b.mgmt.Registrations; next.GetModels()[0].GetFingerprint() == first.GetModels()[0].GetFingerprint() || next.GetInstance() != first.GetInstance() {
			t.Errorf("registered as %v, before as %v", next, first)
		}
	})
}

// TestUpstreamRunsOn: a stream that runs is not touched when the server is not well by its own word.
func TestUpstreamRunsOn(t *testing.T) {
	beside(t, servertest.VLLM, servertest.Options{TokenInterval: 100 * time.Millisecond}, nil, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		<-b.mgmt.Registrations
		l, _ := b.Open(t, b.from, userAddr)
		defer l.Close()
		ask := attach(1, 1, 200)
		ask.Request.Prompt = "river [[length 200]]"
		l.Send(t, ask)
		time.Sleep(time.Second)
		s.SetLoading(true)
		chunks, unavailable := 0, false
		for done := false; !done; {
			switch event := fakedirector.Next[any](t, l).(type) {
			case wire.Chunk:
				chunks++
			case *wirepb.WorkerStatus:
				unavailable = unavailable || !event.GetAvailable()
			case *wirepb.End:
				done = true
			case *wirepb.Fail, *wirepb.Refused:
				t.Fatalf("got %v", event)
			}
		}
		if chunks < 150 || !unavailable {
			t.Errorf("%d chunks, unavailable: %v", chunks, unavailable)
		}
	})
}

// TestUpstreamOffers: models go by other names; a key comes from a file, which may change.
func TestUpstreamOffers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sk-first")
	change := func(cfg *config.Worker) {
		cfg.UpstreamKeyFile, cfg.UpstreamModels, cfg.UpstreamKind = file, []string{"mine=m"}, "openai"
	}
	beside(t, servertest.OpenAI, servertest.Options{Model: "m", APIKey: "sk-second"}, change, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		time.Sleep(10 * time.Second)
		if got := b.status(t); got.Available || !strings.Contains(got.Reason, "denied") || strings.Contains(got.Reason, "sk-") {
			t.Errorf("got %q", got.Reason)
		}
		write("sk-second")
		if got := <-b.mgmt.Registrations; got.GetModels()[0].GetName() != "mine" || got.GetModels()[0].GetClass() != "replayable" {
			t.Errorf("registered as %v", got)
		}
	})
}

// TestUpstreamProbe: on demand the models are measured anew, and what is found is registered, which is no loss of a registration.
func TestUpstreamProbe(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	deps := worker.Deps{Log: zap.New(core)}
	beside(t, servertest.OpenAI, servertest.Options{}, nil, deps, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		<-b.mgmt.Registrations
		time.Sleep(5 * time.Second)
		s.Fail(servertest.Fault{Kind: servertest.Diverge, At: 5, Skip: 2})
		b.worker.Probe()
		if got := <-b.mgmt.Registrations; got.GetModels()[0].GetClass() != "text" {
			t.Errorf("registered as %v", got)
		}
		time.Sleep(time.Minute)
		if n := len(b.mgmt.Registrations); n != 0 {
			t.Errorf("registered %d times more", n)
		}
	})
	if n := logs.FilterMessage("not registered at director").Len(); n != 0 {
		t.Errorf("%d times it was not registered", n)
	}
}

// TestUpstreamLoad: what others have the server do counts in heartbeats; the metrics have it, too.
func TestUpstreamLoad(t *testing.T) {
	beside(t, servertest.VLLM, servertest.Options{Model: "m", TokenInterval: time.Second}, nil, worker.Deps{}, func(t *testing.T, b *bench, s *servertest.Server) {
		begin(t, s)
		<-b.mgmt.Registrations
		for range 3 {
			go func() {
				transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return b.from.DialStream(ctx, addr) }}
				body := `{"model":"m","prompt":"Once [[length 60]]","max_tokens":60,"stream":true}`
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://server:8000/v1/completions", strings.NewReader(body))
				if err != nil {
					return
				}
				if resp, err := transport.RoundTrip(req); err == nil {
					_, _ = new(bytes.Buffer).ReadFrom(resp.Body)
					_ = resp.Body.Close()
				}
			}()
		}
		time.Sleep(20 * time.Second)
		last := uint32(0)
		for len(b.mgmt.Heartbeats) > 0 {
			last = (<-b.mgmt.Heartbeats).GetSessions()
		}
		if last != 3 {
			t.Errorf("the last heartbeat has %d streams", last)
		}
		_, text := b.get(t, "/metrics")
		for _, line := range []string{
			"connswap_worker_upstream_up 1", "connswap_worker_upstream_running_requests 3", "connswap_worker_upstream_waiting_requests 0",
			"connswap_worker_upstream_other_requests 3", "connswap_worker_upstream_probes_total 1",
			`connswap_worker_upstream_model_info{class="exact",model="m"} 1`,
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("the metrics lack %s", line)
			}
		}
		s.Kill()
		time.Sleep(5 * time.Second)
		if _, text := b.get(t, "/metrics"); !strings.Contains(text, "connswap_worker_upstream_up 0\n") || strings.Contains(text, "upstream_running_requests 3") {
			t.Error("the metrics have a server that is gone")
		}
		synctest.Wait()
	})
}
