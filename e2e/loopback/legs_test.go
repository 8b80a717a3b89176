package loopback

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// tunnelPayload is what fits an IPv6 packet of 1280 bytes, the least that IPv6 asks of a path.
const tunnelPayload = 1280 - 40 - 8

// narrowCluster is a director and workers with a stateful engine on real sockets, all behind one narrow path.
type narrowCluster struct {
	*testing.T

	path     *narrow
	sources  map[identity.Role]identity.Source
	director *director.Director
}

// startNarrow starts a director and workers with these labels; all end with the test.
func startNarrow(t *testing.T, path *narrow, labels ...string) *narrowCluster {
	t.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &narrowCluster{T: t, path: path, sources: sources}
	cfg := config.DefaultDirector()
	cfg.ID, cfg.CheckpointInterval, cfg.PlainStatus = "director", 50*time.Millisecond, true
	cfg.UserAddr, cfg.MgmtAddr = "127.0.0.1:0", freeAddr(t)
	c.director, err = director.New(cfg, director.Deps{Network: path, TLS: sources[identity.Director], Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	run := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	run(c.director.Run)
	for _, label := range labels {
		run(c.newWorker(label).Run)
	}
	return c
}

// freeAddr is for UDP and TCP on the same port.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody has connected
	return l.Addr().String()
}

func (c *narrowCluster) newWorker(label string) *worker.Worker {
	c.Helper()
	cfg := config.DefaultWorker()
	cfg.Label, cfg.Engine, cfg.StateBytes, cfg.TokenInterval = label, "stateful", 100<<10, 10*time.Millisecond
	cfg.UserAddr, cfg.MgmtAddr, cfg.DrainTimeout = "127.0.0.1:0", "127.0.0.1:0", time.Second
	cfg.Directors = []string{c.director.MgmtAddr().String()}
	w, err := worker.New(cfg, worker.Deps{Network: c.path, TLS: c.sources[identity.Worker], Log: zap.NewNop()})
	if err != nil {
		c.Fatal(err)
	}
	return w
}

// workers returns the MGMT addresses of those that the director shows, once it is connected to as many.
func (c *narrowCluster) workers(ctx context.Context, op *operator.Client, want int) []string {
	c.Helper()
	for ctx.Err() == nil {
		status, err := op.Status(ctx)
		if err != nil {
			c.Fatal(err)
		}
		var addrs []string
		for _, w := range status.Workers {
			if w.Connected {
				addrs = append(addrs, w.MgmtAddr)
			}
		}
		if len(addrs) == want {
			return addrs
		}
	}
	c.Fatalf("not all workers are connected: %v", context.Cause(ctx))
	return nil
}

// TestEveryLegOnANarrowPath has every QUIC connection of a cluster begin on a path that carries IP packets of 1280 bytes and
// drops larger ones without a word: client, registration, link, operator, health, and states that are pulled by a worker
// and by the director.
func TestEveryLegOnANarrowPath(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_GSO", "true") // so that each datagram is a write of its own
	path := &narrow{}
	path.most.Store(tunnelPayload)
	c := startNarrow(t, path, "worker-a", "worker-b")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("a minute is over"))
	defer cancel()

	op, err := operator.Dial(ctx, c.director.MgmtAddr().String(), operator.Options{TLS: c.sources[identity.Operator], Network: path})
	if err != nil {
		t.Fatal("operator: ", err)
	}
	defer op.Close()                 //nolint:errcheck // the test is over
	workers := c.workers(ctx, op, 2) // registration and link
	c.healthy(ctx, identity.Director, c.director.MgmtAddr().String())
	for _, addr := range workers {
		c.healthy(ctx, identity.Worker, addr)
	}

	conn, err := connswap.Dial(ctx, c.director.UserAddr().String(), connswap.Options{TLS: c.sources[identity.Client], Network: path})
	if err != nil {
		t.Fatal("client: ", err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "a tale", MaxTokens: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	swap := make(chan error, 1)
	var swapped, kept bool // kept: the director has pulled a checkpoint
	for event, err := range stream.Events() {
		if err != nil {
			t.Fatal(err)
		}
		switch e := event.(type) {
		case connswap.Token:
			if e.Sequence == 5 {
				go func() {
					_, err := op.Swap(ctx, conn.ID(), 0, "")
					swap <- err
				}()
			}
			kept = swapped && c.checkpointBytes(ctx) > 0
		case connswap.Swapped:
			if err := <-swap; err != nil { // a worker has pulled the state of another
				t.Error(err)
			}
			swapped = true
		}
		if kept {
			break
		}
	}
	status, err := op.Status(ctx)
	var shown struct {
		Handshakes map[string]quicnet.Handshakes `json:"handshakes"`
	}
	if err := errors.Join(err, json.Unmarshal(status.Raw, &shown)); err != nil || len(shown.Handshakes) != 2 || shown.Handshakes["user"].Refused != 0 {
		t.Errorf("handshakes %v, %v", shown.Handshakes, err)
	}
	if !kept || path.dropped.Load() == 0 || path.largest.Load() > tunnelPayload {
		t.Errorf("swapped: %v; checkpoint: %v; dropped: %d datagrams; largest: %d bytes", swapped, kept, path.dropped.Load(), path.largest.Load())
	}
}

// healthy asks a MGMT port over QUIC.
func (c *narrowCluster) healthy(ctx context.Context, role identity.Role, addr string) {
	c.Helper()
	tls := identity.ClientTLS(c.sources[identity.Operator], wire.ALPNMgmt, role)
	if reply, err := mgmt.Health(ctx, c.path, addr, tls); err != nil || !reply.GetReady() {
		c.Errorf("health of the %s at %s: %v, %v", role, addr, reply, err)
	}
}

// checkpointBytes is how much the director keeps for failovers.
func (c *narrowCluster) checkpointBytes(ctx context.Context) int {
	c.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.director.MgmtAddr().String()+"/v1/checkpoints", nil)
	if err != nil {
		c.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.Fatal(err)
	}
	defer response.Body.Close()
	var shown struct {
		Bytes int `json:"bytes"`
	}
	if err := json.NewDecoder(response.Body).Decode(&shown); err != nil {
		c.Fatal(err)
	}
	return shown.Bytes
}
