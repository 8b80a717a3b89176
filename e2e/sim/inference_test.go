package sim

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// inference is a scripted inference server on a host of its own.
type inference struct {
	*servertest.Server
	host *simtest.Host
	kind servertest.Kind
}

// serve starts an inference server. It ends with the cluster.
func (c *cluster) serve(host string, kind servertest.Kind, o servertest.Options) *inference {
	s := &inference{servertest.New(kind, o), c.net.Host(host), kind}
	if err := s.Serve(func() (net.Listener, error) { return s.host.ListenStream(":8000") }); err != nil {
		c.t.Fatal(err)
	}
	c.wg.Go(func() {
		<-c.ctx.Done()
		s.Close()
	})
	return s
}

// workBeside starts a worker beside an inference server.
func (c *cluster) workBeside(s *inference, change func(*config.Worker)) *process {
	return c.work(func(cfg *config.Worker) {
		cfg.Engine, cfg.UpstreamURL, cfg.UpstreamKind = config.Upstream, "http://"+s.host.Name()+":8000", string(s.kind)
		cfg.TokenInterval, cfg.Capacity = 0, 10_000
		if change != nil {
			change(cfg)
		}
	})
}

// fleet is a cluster of workers beside inference servers.
type fleet struct {
	*cluster
	*front
	servers []*inference
}

// ability is what kind of servers a fleet has.
type ability struct {
	name    string
	kind    servertest.Kind
	options servertest.Options
}

// besides are how many servers a fleet has, and what is special about it.
type besides struct {
	ability
	servers  int
	director func(*config.Director)
	worker   func(*config.Worker)
	trace    bool
}

// inFleet plays in a bubble, with director, workers and servers up, and the servers known.
func inFleet(t *testing.T, b besides, play func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var trace func(string, ...any)
		if b.trace {
			trace = t.Logf
		}
		c := newCluster(t, 1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}}, trace)
		defer c.close()
		f := &fleet{cluster: c}
		c.direct(func(cfg *config.Director) {
			cfg.HTTP, cfg.HTTPHeartbeat = "plain", 90*time.Millisecond
			cfg.MaxWorkerDeaths, cfg.MaxSwapsPerMinute = 1000, 1000
			if b.director != nil {
				b.director(cfg)
			}
		})
		for range b.servers {
			f.beside(b)
		}
		f.settle()
		f.front = c.front("client")
		defer f.front.close()
		play(t, f)
	})
}

// beside adds a server, and a worker beside it.
func (f *fleet) beside(b besides) *process {
	s := f.serve(fmt.Sprintf("server-%d", len(f.servers)), b.kind, b.options)
	f.servers = append(f.servers, s)
	return f.workBeside(s, b.worker)
}

// settle waits until workers have measured their servers, and are known to the director.
func (f *fleet) settle() {
	for range 300 {
		time.Sleep(100 * time.Millisecond) // in the bubble
		able := 0
		for _, w := range f.registered() {
			if w.Available && w.Connected && len(w.Models) > 0 {
				able++
			}
		}
		if able == len(f.workers) {
			return
		}
	}
	f.t.Fatalf("workers are not there: %+v", f.registered())
}
