package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// pipes is a network in memory, for a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inMemory returns a scripted server in the bubble of t, and what asks it.
func inMemory(t *testing.T, kind api.Kind, options servertest.Options, limits api.Timeouts) (*servertest.Server, *api.Server) {
	t.Helper()
	scripted := servertest.New(servertest.Kind(kind), options)
	network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: scripted}
	go server.Serve(network)             //nolint:errcheck // it is closed
	t.Cleanup(func() { server.Close() }) //nolint:errcheck // that of a network in memory
	return scripted, connect(t, api.Config{URL: "http://server", Kind: kind, Dial: network.dial, Timeouts: limits})
}

func TestTimeouts(t *testing.T) {
	limits := api.Timeouts{Connect: time.Second, Headers: 2 * time.Second, First: 20 * time.Second, Silence: 5 * time.Second}
	chat := api.Call{API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"[[length 20]]"}]}`), MaxTokens: 20}
	cases := []struct {
		name    string
		kind    api.Kind
		options servertest.Options
		fault   servertest.Fault
		want    api.Fault
		after   time.Duration
	}{
		{"vLLM's head", api.VLLM, servertest.Options{}, servertest.Fault{Kind: servertest.SilentBefore}, api.Silent, limits.Headers},
		{"a head that comes with the first chunk", api.LlamaCPP, servertest.Options{}, servertest.Fault{Kind: servertest.SilentBefore}, api.Silent, limits.First},
		{"the first chunk", api.VLLM, servertest.Options{}, servertest.Fault{Kind: servertest.SlowFirstToken, Delay: time.Minute}, api.Silent, limits.First},
		{"pings are no chunks", api.LlamaCPP, servertest.Options{TokenInterval: time.Minute}, servertest.Fault{}, api.Silent, limits.Silence},
		{"silence", api.OpenAI, servertest.Options{}, servertest.Fault{Kind: servertest.Silence, At: 4}, api.Silent, limits.Silence},
		{"none", api.SGLang, servertest.Options{TokenInterval: time.Second, Prefill: 15 * time.Second}, servertest.Fault{}, "", 30 * time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.options.Model = "m"
				scripted := servertest.New(servertest.Kind(c.kind), c.options)
				network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				server := &http.Server{Handler: scripted}
				go server.Serve(network) //nolint:errcheck // it is closed
				defer server.Close()     //nolint:errcheck // that of a network in memory
				if c.fault.Kind != servertest.NoFault {
					scripted.Fail(c.fault)
				}
				s := connect(t, api.Config{URL: "http://server", Kind: c.kind, Dial: network.dial, Timeouts: limits})
				defer s.Close()
				call := chat
				call.Model = "m"
				begun := time.Now()
				got := read(s.Generate(t.Context(), call))
				if faultOf(got.end) != c.want || c.want == "" && got.finish.Reason == "" {
					t.Errorf("%v after %v", got.end, time.Since(begun))
				}
				if took := time.Since(begun).Round(100 * time.Millisecond); took < c.after || c.want != "" && took > c.after+time.Second {
					t.Errorf("%v after %v instead of %v", got.end, took, c.after)
				}
			})
		})
	}
	t.Run("connecting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := &pipes{conns: make(chan net.Conn)} // nobody accepts
			s := connect(t, api.Config{URL: "http://server", Kind: api.VLLM, Dial: network.dial, Timeouts: limits})
			begun := time.Now()
			_, err := s.Generate(t.Context(), chat)
			if took := time.Since(begun); faultOf(err) != api.Gone || took != limits.Connect {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
}

// A server stops at once for a client that has gone, wherever its answer is, and nothing is left running here.
func TestCancel(t *testing.T) {
	options := servertest.Options{Model: "m", Prefill: 10 * time.Second, TokenInterval: time.Second}
	call := api.Call{Model: "m", API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"[[length 900]]"}]}`), MaxTokens: 900}
	ends := map[string]func(cancel func(), s *api.Stream){
		"context": func(cancel func(), _ *api.Stream) { cancel() },
		"Close":   func(_ func(), s *api.Stream) { s.Close() },
	}
	for _, kind := range kinds {
		for name, end := range ends {
			t.Run(string(kind)+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					scripted, s := inMemory(t, kind, options, api.Timeouts{})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					stream, err := s.Generate(ctx, call)
					if err != nil {
						t.Fatal(err)
					}
					time.AfterFunc(time.Minute, func() { end(cancel, stream) })
					begun := time.Now()
					got := read(stream, nil)
					synctest.Wait()
					if took := time.Since(begun); !errors.Is(got.end, context.Canceled) || took > time.Minute || len(got.deltas) < 9 {
						t.Errorf("%v after %v", got.end, took)
					}
					if n := scripted.Running(); n != 0 {
						t.Errorf("the server works for %d requests", n)
					}
				})
			})
		}
		t.Run(string(kind)+" before the first chunk", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scripted, s := inMemory(t, kind, options, api.Timeouts{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				got := read(s.Generate(ctx, call))
				synctest.Wait()
				if !errors.Is(got.end, context.DeadlineExceeded) || scripted.Running() != 0 {
					t.Errorf("%v, the server works for %d requests", got.end, scripted.Running())
				}
			})
		})
	}
}

func TestLoad(t *testing.T) {
	call := api.Call{Model: "m", API: wire.APIChat, Body: []byte(`{"messages":[{"role":"user","content":"[[length 900]]"}]}`), MaxTokens: 900}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, s := inMemory(t, kind, servertest.Options{Model: "m", TokenInterval: time.Second, Capacity: 1}, api.Timeouts{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for range 3 {
					go read(s.Generate(ctx, call))
				}
				synctest.Wait()
				load, err := s.Load(t.Context())
				known := kind != api.Ollama && kind != api.OpenAI
				if err != nil || load.Known != known || known && (load.Running != 1 || load.Waiting != 2) || load.Cache < 0 || load.Cache > 1 {
					t.Errorf("%+v, %v", load, err)
				}
				<-ctx.Done()
			})
		})
	}
}

// BenchmarkStream is what a chunk costs with the connection that it comes by: system calls, HTTP, timers. Each chunk is written by itself.
func BenchmarkStream(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range b.N {
			io.WriteString(w, events(a)) //nolint:errcheck // a client that has gone is told nothing
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, events(stop, done)) //nolint:errcheck // as above
	}))
	defer server.Close()
	limits := api.Timeouts{Connect: time.Minute, Headers: time.Minute, First: time.Minute, Silence: time.Minute}
	s, err := api.New(api.Config{URL: server.URL, Kind: api.OpenAI, Timeouts: limits})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	b.ResetTimer()
	stream, err := s.Generate(b.Context(), api.Call{API: wire.APIChat, Body: []byte(`{}`)})
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Next()
	}
	if _, ok := engine.Finished(err); !ok || n != b.N+1 {
		b.Fatal(n, err)
	}
}
