package loopback

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/connswap/connswap/shared/identity"
)

// transports speak each version of HTTP with the director, over TLS.
func (c *cluster) transports(t *testing.T) map[string]http.RoundTripper {
	t.Helper()
	roots, err := c.tls.Roots()
	if err != nil {
		t.Fatal(err)
	}
	conf := func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: identity.Director.ServerName()}
	}
	h3 := &http3.Transport{TLSClientConfig: conf()}
	t.Cleanup(func() { _ = h3.Close() })
	return map[string]http.RoundTripper{
		"HTTP/1.1": &http.Transport{TLSClientConfig: conf(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}},
		"HTTP/2.0": &http.Transport{TLSClientConfig: conf(), ForceAttemptHTTP2: true},
		"HTTP/3.0": h3,
	}
}

// post asks for a streamed completion of so many tokens.
func (c *cluster) post(ctx context.Context, by http.RoundTripper, tokens int) (*http.Response, error) {
	body := fmt.Sprintf(`{"prompt":"The river","stream":true,"max_tokens":%d,"seed":5,"ignore_eos":true}`, tokens)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.user+"/v1/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return by.RoundTrip(req)
}

// text reads a completion to its end. each is called after each piece.
func text(resp *http.Response, each func(n int)) (all string, err error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	complete := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if complete = complete || data == "[DONE]"; complete || !ok {
			continue
		}
		var chunk struct{ Choices []struct{ Text string } }
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return all, err
		}
		all += chunk.Choices[0].Text
		each(strings.Count(all, " "))
	}
	if !complete {
		err = errors.New("it broke off")
	}
	return all, err
}

// All versions of HTTP carry the same text, and go on with it when their worker dies.
func TestVersionsOfHTTP(t *testing.T) {
	c := up(t, "CONNECTION_SWAP_DIRECTOR_HTTP=tls")
	want, killed := "", false
	for _, version := range []string{"HTTP/2.0", "HTTP/1.1", "HTTP/3.0"} {
		resp, err := c.post(t.Context(), c.transports(t)[version], 60)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		if resp.Proto != version || resp.Header.Get("X-Connswap-Continuity") != "exact" || (resp.Header.Get("Alt-Svc") == "") != (version == "HTTP/3.0") {
			t.Errorf("%s: %s, %v", version, resp.Proto, resp.Header)
		}
		got, err := text(resp, func(n int) {
			if version != "HTTP/2.0" && n == 20 { // the worker that serves it; the other one is left
				if name := resp.Header.Get("X-Connswap-Worker"); !killed {
					killed = true
					_ = c.workers[name].Process.Kill()
				}
			}
		})
		if want == "" {
			want = got
		}
		if err != nil || got != want || want == "" {
			t.Errorf("%s: %v\n got %q\nwant %q", version, err, got, want)
		}
		if swaps := resp.Trailer.Get("X-Connswap-Swaps"); (swaps == "1") != (version == "HTTP/1.1") {
			t.Errorf("%s: %s swaps", version, swaps)
		}
	}
}

// A client that leaves stops its worker, whichever way it leaves: by closing its connection, or only the half on which it writes.
func TestHTTPClientLeaves(t *testing.T) {
	c := up(t, "CONNECTION_SWAP_DIRECTOR_HTTP=plain")
	for name, leave := range map[string]func(conn *net.TCPConn) error{"closed": (*net.TCPConn).Close, "half-closed": (*net.TCPConn).CloseWrite} {
		conn, err := net.Dial("tcp", c.user)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it may be closed
		const body = `{"prompt":"x","stream":true}`
		if _, err := fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		for line := ""; !strings.HasPrefix(line, "data: "); {
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if n := c.running(t); n != 1 {
			t.Fatalf("%d streams run", n)
		}
		if err := leave(conn.(*net.TCPConn)); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); c.running(t) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > 10*time.Second {
				t.Fatalf("%s: its worker goes on", name)
			}
		}
		if name == "half-closed" { // what it still reads is no complete answer
			if rest, err := io.ReadAll(in); strings.Contains(string(rest), "[DONE]") || strings.HasSuffix(string(rest), "0\r\n\r\n") {
				t.Errorf("%q, %v", rest, err)
			}
		}
	}
}

// running returns how many sessions the workers have.
func (c *cluster) running(t *testing.T) (n int) {
	t.Helper()
	for name := range c.workers {
		_, body := c.get(t, name, "/v1/status")
		var status struct{ Sessions []any }
		if err := json.Unmarshal([]byte(body), &status); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		n += len(status.Sessions)
	}
	return n
}

// A director that is asked to stop lets its HTTP streams end, and takes no new ones; a second signal ends those that are left, which
// are told.
func TestHTTPDrain(t *testing.T) {
	c := up(t, "CONNECTION_SWAP_DIRECTOR_HTTP=tls")
	by := c.transports(t)
	short, err := c.post(t.Context(), by["HTTP/1.1"], 100)
	if err != nil {
		t.Fatal(err)
	}
	idle, err := c.post(t.Context(), by["HTTP/3.0"], 1) // its connection stays
	if err != nil {
		t.Fatal(err)
	}
	if _, err := text(idle, func(int) {}); err != nil {
		t.Fatal(err)
	}
	long, err := c.post(t.Context(), by["HTTP/2.0"], 10_000) //nolint:bodyclose // whoever reads it closes it
	if err != nil {
		t.Fatal(err)
	}
	if err := c.director.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.director.line(t, "no new streams; those that run may end")
	late, err := c.post(t.Context(), by["HTTP/2.0"], 1)
	if err == nil {
		defer late.Body.Close()
		if late.StatusCode != http.StatusServiceUnavailable || late.Header.Get("Retry-After") == "" {
			t.Errorf("a new stream: %s", late.Status)
		}
	}
	if _, err := text(short, func(int) {}); err != nil {
		t.Errorf("a stream that ends in time: %v", err)
	}
	told := make(chan string, 1)
	go func() {
		defer long.Body.Close()
		rest, err := io.ReadAll(long.Body)
		told <- fmt.Sprint(string(rest), err)
	}()
	c.director.terminate(t)
	if said := <-told; !strings.Contains(said, `"code":"stream_interrupted"`) || !strings.Contains(said, "shutdown") || strings.Contains(said, "[DONE]") {
		t.Errorf("a stream that was cut off is told %q", said[max(0, len(said)-300):])
	}
	for _, w := range c.workers {
		w.terminate(t)
	}
}
