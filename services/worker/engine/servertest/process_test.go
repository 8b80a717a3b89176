package servertest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/shared/simtest"
)

const question = `{"model":"m","temperature":0,"stream":true,"max_tokens":30,"messages":[{"role":"user","content":"hello [[length 30]]"}]}`

// simulate runs a server on a simulated network, and a client that reaches it at http://server:8000.
func simulate(t *testing.T, kind servertest.Kind, options servertest.Options, test func(t *testing.T, s *servertest.Server, h *http.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer n.Close()
		options.Model = "m"
		s := servertest.New(kind, options)
		host, client := n.Host("server"), n.Host("client")
		if err := s.Serve(func() (net.Listener, error) { return host.ListenStream(":8000") }); err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return client.DialStream(ctx, address)
		}}
		test(t, s, &http.Client{Transport: transport})
		transport.CloseIdleConnections()
		s.Close()
	})
}

func ask(ctx context.Context, t *testing.T, h *http.Client) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://server:8000/v1/chat/completions", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	return h.Do(r)
}

// lines reads n lines of a stream.
func lines(t *testing.T, r *bufio.Reader, n int) {
	t.Helper()
	for range n {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTokensTakeTheirTime(t *testing.T) {
	options := servertest.Options{TokenInterval: 20 * time.Millisecond, Prefill: 300 * time.Millisecond}
	simulate(t, servertest.VLLM, options, func(t *testing.T, _ *servertest.Server, h *http.Client) {
		begin := time.Now()
		response, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if head := time.Since(begin); head > 10*time.Millisecond {
			t.Errorf("the head took %v", head)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Fatal(err)
		}
		want := 300*time.Millisecond + 29*20*time.Millisecond
		if took := time.Since(begin); took < want || took > want+20*time.Millisecond {
			t.Errorf("took %v, not %v", took, want)
		}
	})
}

func TestAClientThatLeavesEndsItsRequest(t *testing.T) {
	simulate(t, servertest.VLLM, servertest.Options{TokenInterval: time.Second}, func(t *testing.T, s *servertest.Server, h *http.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		response, err := ask(ctx, t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		lines(t, bufio.NewReader(response.Body), 4)
		if s.Running() != 1 {
			t.Fatalf("%d requests run", s.Running())
		}
		cancel()
		time.Sleep(50 * time.Millisecond) // of simulated time
		synctest.Wait()
		made := s.Tokens()
		if s.Running() != 0 {
			t.Errorf("%d requests still run", s.Running())
		}
		time.Sleep(10 * time.Second)
		if s.Tokens() != made {
			t.Error("it still makes tokens")
		}
	})
}

func TestDeathAndBirth(t *testing.T) {
	simulate(t, servertest.SGLang, servertest.Options{TokenInterval: time.Second}, func(t *testing.T, s *servertest.Server, h *http.Client) {
		response, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		lines(t, bufio.NewReader(response.Body), 4)
		s.Kill()
		if _, err := io.Copy(io.Discard, response.Body); err == nil {
			t.Error("the stream of a killed server ends well")
		}
		response.Body.Close()
		synctest.Wait()
		if s.Running() != 0 {
			t.Errorf("%d requests run in a dead process", s.Running())
		}
		if response, err := ask(t.Context(), t, h); err == nil {
			response.Body.Close()
			t.Error("a dead server is not refused")
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		response, err = ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		if got := readStream(response); !got.done {
			t.Errorf("after the start: %+v", got)
		}
		response.Body.Close()
	})
}

func TestDeathOnLoopback(t *testing.T) {
	c := start(t, servertest.VLLM, servertest.Options{})
	c.server.Fail(servertest.Fault{Kind: servertest.Silence, At: 2})
	response := c.post(chatPath, c.chat("hello"))
	lines(t, bufio.NewReader(response.Body), 4)
	c.server.Kill()
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("the stream of a killed server ends well")
	}
	response.Body.Close()
	if r := c.stream(chatPath, c.chat("hello")); r.status != 0 || r.err == nil {
		t.Error("a dead server is not refused")
	}
	if err := c.server.Start(); err != nil {
		t.Fatal(err)
	}
	if r := c.stream(chatPath, c.chat("hello")); !r.done {
		t.Errorf("after the start, at the same address: %v", r.err)
	}
}

func TestAHangingProcess(t *testing.T) {
	simulate(t, servertest.LlamaCPP, servertest.Options{TokenInterval: 100 * time.Millisecond}, func(t *testing.T, s *servertest.Server, h *http.Client) {
		response, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		lines(t, bufio.NewReader(response.Body), 6)
		s.Hang()
		made := s.Tokens()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server:8000/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := h.Do(r); err == nil {
			other.Body.Close()
			t.Error("a hanging process answers")
		}
		if s.Tokens() > made+1 {
			t.Error("a hanging process makes tokens")
		}
		s.Resume()
		if got := readStream(response); !got.done || got.err != nil {
			t.Errorf("after it: %+v", got)
		}
	})
}

func TestPings(t *testing.T) {
	options := servertest.Options{TokenInterval: 3500 * time.Millisecond}
	simulate(t, servertest.LlamaCPP, options, func(t *testing.T, _ *servertest.Server, h *http.Client) {
		response, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if got := readStream(response); got.pings != 3*29 {
			t.Errorf("%d pings", got.pings)
		}
	})
}

func TestPingsAsARequestWantsThem(t *testing.T) {
	c := start(t, servertest.LlamaCPP, servertest.Options{Ping: 400 * time.Microsecond, TokenInterval: time.Millisecond})
	if r := c.stream(chatPath, c.chat("hello")); r.pings == 0 {
		t.Error("no pings")
	}
	if r := c.stream(chatPath, c.with(c.chat("hello"), object{"sse_ping_interval": -1})); r.pings > 0 {
		t.Errorf("%d pings that were not wanted", r.pings)
	}
}

func TestOthersWaitForAPlace(t *testing.T) {
	options := servertest.Options{TokenInterval: time.Second, Capacity: 1}
	simulate(t, servertest.VLLM, options, func(t *testing.T, s *servertest.Server, h *http.Client) {
		first, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Body.Close()
		lines(t, bufio.NewReader(first.Body), 2)
		second, err := ask(t.Context(), t, h)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Body.Close()
		synctest.Wait()
		metrics, err := h.Get("http://server:8000/metrics") //nolint:noctx // simulated
		if err != nil {
			t.Fatal(err)
		}
		defer metrics.Body.Close()
		text, err := io.ReadAll(metrics.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"requests_running{engine=\"0\",model_name=\"m\"} 1", "requests_waiting{engine=\"0\",model_name=\"m\"} 1", "usage_perc{engine=\"0\",model_name=\"m\"} 1"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
		if s.Running() != 2 {
			t.Errorf("%d run or wait", s.Running())
		}
		if got := readStream(second); !got.done {
			t.Error("the second did not get its turn")
		}
	})
}

func TestOnHTTPTest(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{Model: "m"})
	on := httptest.NewServer(s)
	defer on.Close()
	s.Fail(servertest.Fault{Kind: servertest.Reset, At: 2})
	response, err := on.Client().Post(on.URL+chatPath, "application/json", strings.NewReader(question)) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := readStream(response); len(got.events) != 2 || got.err == nil {
		t.Errorf("%+v", got)
	}
}

func TestTheSameRandomNumbers(t *testing.T) {
	ids := func(random uint64) string {
		c := start(t, servertest.OpenAI, servertest.Options{Random: random})
		r := c.stream(chatPath, c.with(c.chat("hello"), object{"temperature": 1}))
		return fmt.Sprint(r.events[0]["id"], r.text(0, "content"))
	}
	first, again, other := ids(5), ids(5), ids(6)
	if first != again || first == other {
		t.Errorf("ids do not depend on Random: %q, %q, %q", first, again, other)
	}
	if one, another := ids(0), ids(0); one == another {
		t.Error("without Random ids are repeated")
	}
}
