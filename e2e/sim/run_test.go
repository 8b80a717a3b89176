package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// bound is by when every stream of a plan has to have ended, in the run's own time.
const bound = 3 * time.Minute

// run plays a plan in a bubble and returns what went against ARCHITECTURE §7.
func (p plan) run(c *cluster) (violations []error) {
	c.direct(func(cfg *config.Director) {
		cfg.CheckpointInterval, cfg.CheckpointPlace = p.checkpoints, map[bool]string{true: "peer", false: "director"}[p.atPeer]
		cfg.Confirm = map[bool]string{true: "operator", false: "auto"}[p.confirm]
		cfg.WindowTokens, cfg.MaxConcurrentSwaps = p.window, p.swaps
		cfg.Routing = []string{"round_robin", "least_loaded", "p2c"}[p.seed/3%3]
		cfg.MaxWorkerDeaths, cfg.MaxSwapsPerMinute = 1000, 1000 // these have tests of their own
		cfg.WorkerWait, cfg.HTTP = bound, "plain"
		cfg.LinkKeepAlive = 101_300 * time.Microsecond // no timer shall meet another one at the same instant
	})
	for n := range p.workers {
		c.sleep(1_370 * time.Microsecond)
		c.work(func(cfg *config.Worker) {
			p.configure(cfg)
			cfg.FailureMode, cfg.FailureMin, cfg.FailureMax = p.failureMode(n), time.Hour, time.Hour
			cfg.FailureRecovery, cfg.FailureSeed = time.Second, p.seed+1
		})
	}
	ctx, cancel := context.WithTimeout(c.ctx, bound)
	defer cancel()
	var report reporter
	for _, f := range p.faults {
		c.wg.Go(func() { c.play(f) })
	}
	for _, a := range p.absences {
		c.wg.Go(func() { c.leave(a) })
	}
	ids := make([]chan string, len(p.clients)) // connection ids, for the operators
	for i := range ids {
		ids[i] = make(chan string, 1)
	}
	for _, a := range p.actions {
		c.wg.Go(func() { report.add(c.act(ctx, a, ids)) })
	}
	if p.confirm {
		c.wg.Go(func() { report.add(c.decide(ctx, p.seed)) })
	}
	watching, unwatch := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { report.add(c.watch(watching, p)) })
	var clients sync.WaitGroup
	for i, cl := range p.clients {
		clients.Go(func() { report.add(c.client(ctx, p, i, cl, ids[i])) })
	}
	clients.Wait()
	unwatch()
	watch.Wait()
	return report.errs
}

type reporter struct {
	mu   sync.Mutex
	errs []error
}

func (r *reporter) add(err error) {
	if err != nil {
		r.mu.Lock()
		r.errs = append(r.errs, err)
		r.mu.Unlock()
	}
}

// play lets a fault happen, and mends it.
func (c *cluster) play(f fault) {
	c.sleep(f.at)
	w := c.workers[f.worker]
	var mend func()
	switch f.kind {
	case kill:
		w.die(w.host.Kill)
		mend = w.restart
	case crash:
		w.die(w.host.Crash)
		mend = w.restart
	case killAll:
		for _, w := range c.workers {
			w.die(w.host.Kill)
		}
		mend = func() {
			for _, w := range c.workers {
				w.restart()
			}
		}
	case freeze:
		w.host.Freeze()
		mend = w.host.Thaw
	case cutTo, cutFrom:
		from, to := c.director, w.host
		if f.kind == cutFrom {
			from, to = to, from
		}
		c.net.Cut(from, to)
		if f.both {
			c.net.Cut(to, from)
		}
		mend = func() { c.net.Heal(from, to); c.net.Heal(to, from) }
	case lossyPath:
		c.net.SetPath(c.director, w.host, simtest.Path{Delay: time.Millisecond, Loss: 0.33})
		c.net.SetPath(w.host, c.director, simtest.Path{Delay: time.Millisecond, Loss: 0.33})
		mend = func() {
			c.net.SetPath(c.director, w.host, simtest.Path{Delay: time.Millisecond})
			c.net.SetPath(w.host, c.director, simtest.Path{Delay: time.Millisecond})
		}
	default:
		w.failNow()
		return // it recovers by itself
	}
	c.sleep(f.mend - f.at)
	mend()
}

// leave has a client go away, and come back.
func (c *cluster) leave(a absence) {
	c.sleep(a.at)
	client := c.net.Host(fmt.Sprintf("client-%d", a.client))
	mend := func() { heal(c.net, client, c.director) }
	switch a.kind {
	case cutToClient:
		c.net.Cut(c.director, client)
	case cutOfClient:
		c.net.Cut(client, c.director)
	case asleep:
		client.Freeze()
		mend = client.Thaw
	case rebound:
		client.Rebind()
		mend = client.Rebind
	default:
		cut(c.net, client, c.director)
	}
	c.sleep(a.mend - a.at)
	mend()
}

// client runs all streams of one client and checks that its connection stays what it was, at both ends; of one that goes away
// the id stays.
func (c *cluster) client(ctx context.Context, p plan, number int, plan clientPlan, tell chan<- string) error {
	host := fmt.Sprintf("client-%d", number)
	conn, err := c.dial(host)
	if err != nil {
		return fmt.Errorf("%s: %w", host, err)
	}
	defer conn.Close() //nolint:errcheck // the run is over
	id := conn.ID()
	tell <- id
	before, err := conn.Proof()
	if err != nil {
		return err
	}
	var streams sync.WaitGroup
	var report reporter
	for _, s := range plan.streams {
		streams.Go(func() {
			c.sleep(s.start)
			run := func() error { return c.stream(ctx, p, conn, s) }
			if p.overHTTP(number, s) {
				run = func() error { return c.webStream(ctx, p, host, s) }
			}
			if err := run(); err != nil {
				report.add(fmt.Errorf("%s, stream %+v: %w", host, s, err))
			}
		})
	}
	streams.Wait()
	after, err := conn.Proof()
	switch {
	case err != nil:
		report.add(err)
	case id != conn.ID() || before != after && !p.leaves(number) || before.ODCID == "":
		report.add(fmt.Errorf("%s: connection changed from %s %v to %s %v", host, id, before, conn.ID(), after))
	}
	if !p.leaves(number) { // else it may be away now, without a stream
		report.add(c.sameAtDirector(id, after))
	}
	return errors.Join(report.errs...)
}

// connections is what the director shows of its clients.
type connections struct {
	Connections []struct {
		ConnectionID string `json:"connection_id"`
		ODCID        string `json:"odcid"`
		Exporter     string `json:"exporter_sha256"`
		Streams      []struct {
			Sequence uint64 `json:"sequence"`
			Sent     uint64 `json:"sent"`
			Swaps    uint64 `json:"swaps"`
		} `json:"streams"`
	} `json:"connections"`
}

func (c *cluster) sameAtDirector(id string, proof connswap.Proof) error {
	var all connections
	if err := c.status("/v1/connections", &all); err != nil {
		return err
	}
	for _, conn := range all.Connections {
		if conn.ConnectionID == id {
			if conn.ODCID != proof.ODCID || conn.Exporter != proof.ExporterHash() {
				return fmt.Errorf("the director sees %+v, the client %+v", conn, proof)
			}
			return nil
		}
	}
	return fmt.Errorf("the director does not know %s", id)
}

// watch looks all the time at what sessions hold: never more than the window, and one token for each swap.
func (c *cluster) watch(ctx context.Context, p plan) error {
	for ctx.Err() == nil {
		var all connections
		if err := c.status("/v1/connections", &all); err != nil {
			return err
		}
		for _, conn := range all.Connections {
			for _, s := range conn.Streams {
				if s.Sequence-s.Sent > uint64(p.window)+s.Swaps+1 {
					return fmt.Errorf("a session holds %d tokens that the client did not take, after %d swaps with a window of %d", s.Sequence-s.Sent, s.Swaps, p.window)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// stream reads one stream and holds it against the text of a run without faults. What it checks it checks by
// itself: it does not rely on the checks of the client's package.
func (c *cluster) stream(ctx context.Context, p plan, conn *connswap.Conn, plan streamPlan) error {
	want, err := p.faultFree(plan)
	if err != nil {
		return err
	}
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: plan.prompt, MaxTokens: uint32(plan.tokens), Seed: plan.seed, Standby: plan.seed%8 == 0})
	if err != nil {
		return err
	}
	var text strings.Builder
	var last, epoch, given uint64
	done := false
	for event, err := range stream.Events() {
		if err != nil {
			return fmt.Errorf("after token %d: %w", last, err)
		}
		switch e := event.(type) {
		case connswap.Token:
			if e.Sequence != last+1 {
				return fmt.Errorf("token %d after %d", e.Sequence, last)
			}
			if e.Epoch < epoch || e.Epoch != given {
				return fmt.Errorf("token %d of epoch %d after epoch %d, given to %d", e.Sequence, e.Epoch, epoch, given)
			}
			last, epoch = e.Sequence, e.Epoch
			text.WriteString(e.Text)
			if plan.cancel > 0 && last >= uint64(plan.cancel) {
				stream.Close()
				return nil
			}
			c.read(plan, last)
		case connswap.Assigned:
			given = e.Epoch
		case connswap.Swapped:
			if e.Epoch <= given || e.Sequence != last { // an epoch takes effect once
				return fmt.Errorf("after token %d of epoch %d: %+v", last, given, e)
			}
			given = e.Epoch
		case connswap.Resumed:
			if e.Sequence != last || len(p.absences) == 0 {
				return fmt.Errorf("after token %d: %+v", last, e)
			}
			c.resumed.Add(1)
		case connswap.Done:
			done = true
			if e.Tokens != uint64(plan.tokens) || e.FinishReason != "length" {
				return fmt.Errorf("done: %+v, asked for %d tokens", e, plan.tokens)
			}
		}
	}
	switch {
	case !done || last != uint64(plan.tokens):
		return fmt.Errorf("ended after token %d, done %v", last, done)
	case text.String() != want:
		return fmt.Errorf("text differs from that of a run without faults:\n got %q\nwant %q", text.String(), want)
	}
	return nil
}

// read takes the time that a reader of this plan needs for a token.
func (c *cluster) read(plan streamPlan, sequence uint64) {
	c.sleep(plan.pause)
	if plan.stall > 0 && sequence == uint64(plan.tokens)/2+1 {
		c.sleep(plan.stall)
	}
}

// faultFree returns the text that the engine gives when nothing goes wrong.
func (p plan) faultFree(plan streamPlan) (string, error) {
	var cfg config.Worker
	p.configure(&cfg)
	e, err := worker.EngineOf(cfg)
	if err != nil {
		return "", err
	}
	return textOf(e, engine.Request{Prompt: plan.prompt, Seed: plan.seed, MaxTokens: plan.tokens})
}

// textOf returns the text of a whole generation.
func textOf(e engine.Engine, req engine.Request) (string, error) {
	ctx := context.Background()
	g, err := e.Open(ctx, req, nil, func(int, int) {})
	if err != nil {
		return "", err
	}
	defer g.Close() //nolint:errcheck // nothing depends on it
	var text strings.Builder
	for range req.MaxTokens {
		token, err := g.Next(ctx)
		if err != nil {
			return "", err
		}
		text.Write(token.Text)
	}
	return text.String(), nil
}
