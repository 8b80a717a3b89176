package loopback

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// TestNobodyReadsTheLog has the standard error of all processes be a pipe that nobody reads, or will ever read. Streams
// begin, and move when a worker dies, and everything is well; only the lines are lost.
func TestNobodyReadsTheLog(t *testing.T) {
	cases := map[string]struct {
		leave func(*process) // what the reader does once it has read the first lines
		lost  func(telemetry.Counts) bool
	}{
		"it stays open": {func(*process) {}, func(n telemetry.Counts) bool { return n.Failed == 0 }},
		"it is closed":  {func(p *process) { _ = p.pipe.Close() }, func(n telemetry.Counts) bool { return n.Failed > 0 }},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			c := up(t, "CONNECTION_SWAP_LOG_LEVEL=debug")
			for _, p := range []*process{c.director, c.workers["worker-a"], c.workers["worker-b"]} {
				test.leave(p)
			}
			c.many(t, 60) // at some 500 bytes in each process that is several times what the pipe takes
			var victim string
			done, err := c.generate(t.Context(), 200, func(worker string) {
				victim = worker
				if err := c.workers[worker].Process.Kill(); err != nil {
					t.Error(err)
				}
			})
			if err != nil || done.Tokens != 200 || done.Swaps == 0 {
				t.Errorf("%+v, %v", done, err)
			}
			c.many(t, 5)
			delete(c.workers, victim)
			for name, w := range c.workers {
				var status struct{ Log telemetry.Counts }
				if _, body := c.get(t, name, "/v1/status"); json.Unmarshal([]byte(body), &status) != nil || !test.lost(status.Log) {
					t.Errorf("%s: %s", name, body)
				}
				for _, node := range []string{name, "director"} {
					if code, body := c.get(t, node, "/readyz"); code != http.StatusOK {
						t.Errorf("%s: %d %s", node, code, body)
					}
				}
				w.terminate(t)
			}
			c.director.terminate(t)
			rest, _ := io.ReadAll(c.director.pipe) // fails where it is closed
			if name == "it stays open" && len(rest) < 2048 {
				t.Errorf("nobody had read, and only %d bytes were there", len(rest))
			}
		})
	}
}

// TestOrdinaryStreamsCostTwoLines counts what streams without trouble leave in the logs: that they begin, and that they
// end. Clients that come and go leave nothing.
func TestOrdinaryStreamsCostTwoLines(t *testing.T) {
	const streams = 40
	c := up(t)
	director, workers := c.logged(t, func() { c.many(t, streams) })
	for name, lines := range map[string][]logLine{"director": director, "workers": workers} {
		count := map[string]int{}
		for _, line := range lines {
			if line.ConnectionID != "" {
				count[line.Level+": "+line.Msg]++
			}
		}
		if len(count) != 2 {
			t.Errorf("%s: %v", name, count)
		}
		for what, n := range count {
			if n != streams {
				t.Errorf("%s: %d times %q for %d streams", name, n, what, streams)
			}
		}
	}
}

// TestWhatIsCheapCostsLittle has those who do what is cheap do it as often as they can. What the log leaves out it counts.
func TestWhatIsCheapCostsLittle(t *testing.T) {
	c := up(t)
	director, workers := c.logged(t, func() {
		strangers(t, c.http["director"], c.certs)
		generateAndCancel(t, c, 1000)
	})
	written := func(lines []logLine, message string) (n int, counted bool) {
		for _, line := range lines {
			if line.Msg == message {
				n++
			}
			counted = counted || strings.HasPrefix(line.Msg, message+": ")
		}
		return n, counted
	}
	for message, most := range map[string]int{
		"refused on the MGMT port": 100, "worker assigned": 600, "stream cancelled by the client": 600, // a period has 5 or 100
	} {
		if n, counted := written(director, message); n == 0 || n > most || !counted {
			t.Errorf("%d times %q, and the rest counted: %t", n, message, counted)
		}
	}
	if n, counted := written(workers, "session attached"); n == 0 || n > 600 || !counted {
		t.Errorf("workers: %d times that a session began, and the rest counted: %t", n, counted)
	}
}

// strangers has 200 of them knock at a MGMT port, with a certificate that a client has.
func strangers(t *testing.T, addr, certs string) {
	t.Helper()
	source, err := identity.FromDir(certs, identity.Client)
	if err != nil {
		t.Fatal(err)
	}
	conf := identity.ClientTLS(source, wire.ALPNMgmt, identity.Director)
	var group errgroup.Group
	group.SetLimit(8)
	for range 200 {
		group.Go(func() error {
			conn, err := quicnet.Dial(t.Context(), quicnet.OS{}, addr, conf, quicnet.MgmtConfig(5*time.Second))
			if err == nil { // the refusal follows
				<-conn.Context().Done()
				_ = conn.Close(wire.QUICOk, "") // it is closed
			}
			return nil
		})
	}
	_ = group.Wait() // all of them are nil
}

// generateAndCancel has one client begin streams and cancel each as soon as it has a worker.
func generateAndCancel(t *testing.T, c *cluster, n int) {
	t.Helper()
	conn, err := connswap.Dial(t.Context(), c.user, connswap.Options{TLS: c.tls})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	var group errgroup.Group
	group.SetLimit(32)
	for range n {
		group.Go(func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := conn.Generate(ctx, connswap.Request{Prompt: "The river", MaxTokens: 1000})
			if err != nil {
				return err
			}
			for event, err := range stream.Events() {
				if err != nil {
					return err
				}
				if _, ok := event.(connswap.Assigned); ok {
					break
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
