package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// TestFaultTable plays every cell of the table in docs/SWAPS.md: a planned swap from worker-0 to worker-1 is brought to
// the state of the column, the fault of the row happens, and the end has to be the one that is named.
func TestFaultTable(t *testing.T) {
	states, rows := faultTable(t)
	if len(rows) != len(faults) {
		t.Errorf("%d faults in the table, the test knows %d", len(rows), len(faults))
	}
	for _, row := range rows {
		happen := faults[row[0]]
		if happen == nil {
			t.Fatalf("unknown fault %q", row[0])
		}
		for i, end := range row[1:] {
			if end != "–" {
				t.Run(row[0]+"/"+states[i], func(t *testing.T) { (&cell{state: states[i], fault: row[0], end: end}).play(t, happen) })
			}
		}
	}
}

// faultTable reads the last table of the page: the states, and the rows, each beginning with its fault.
func faultTable(t *testing.T) (states []string, rows [][]string) {
	page, err := os.ReadFile("../../docs/SWAPS.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "fault":
			states = cells[1:]
		case states != nil && len(cells) == len(states)+1 && !strings.HasPrefix(cells[0], "-"):
			rows = append(rows, cells)
		}
	}
	return states, rows
}

// cell is one cell of the table, while it is played.
type cell struct {
	*cluster
	state, fault, end string

	conn    *connswap.Conn
	stream  *connswap.Stream
	op      *operator.Client
	giveUp  context.CancelFunc // ends the operator's request
	release func()             // lets a swap that is held in Initiating or WaitingConfirmation go on
	unread  chan struct{}      // closed when the client may read
	stuck   atomic.Bool        // engines produce nothing
}

const (
	cellDelay    = 20 * time.Millisecond
	cellInterval = 3 * time.Second // longer than any swap: what happens in Pivoting comes before the next token
	cellTokens   = 10
	stallTokens  = 40
)

// faults are what the rows mean. Most have to happen in the state; some are in the configuration.
var faults = map[string]func(c *cell){
	"source dies":               func(c *cell) { c.workers[0].die(c.workers[0].host.Kill) },
	"target dies":               func(c *cell) { c.workers[1].die(c.workers[1].host.Kill) },
	"link to the source breaks": func(c *cell) { c.cutOff(c.workers[0]) },
	"link to the target breaks": func(c *cell) { c.cutOff(c.workers[1]) },
	"token expires":             func(c *cell) { c.sleep(2 * c.tokenTTL()); c.release() },
	"operator vetoes":           (*cell).veto,
	"operator gives up":         func(c *cell) { c.giveUp() },
	"client cancels":            func(c *cell) { c.stream.Close() },
	"client stalls":             func(c *cell) { c.release() }, // it has stalled long before
	"time is up":                (*cell).delayAnswers,
}

// cutOff cuts the link between the director and a worker; both talk with everybody else.
func (c *cell) cutOff(p *process) {
	c.net.Cut(c.director, p.host)
	c.net.Cut(p.host, c.director)
}

// veto is refused once the cut is made.
func (c *cell) veto() {
	err := c.op.Veto(c.ctx, c.conn.ID(), 1, "not now")
	if late := c.state == "Verifying"; late != errors.Is(err, &wire.Error{Code: wire.CodeConflict}) || !late && err != nil {
		c.t.Errorf("the operator is told: %v", err)
	}
}

// delayAnswers makes what the state waits for take longer than it may, while everything is alive.
func (c *cell) delayAnswers() {
	source, target := c.workers[0].host, c.workers[1].host
	slow := simtest.Path{Delay: 250 * time.Millisecond} // less than silence that counts as a loss
	switch c.state {
	case "Preparing":
		c.net.SetPath(target, c.director, slow)
	case "CapturingState":
		c.net.SetPath(source, c.director, slow)
	case "TransferringState":
		c.net.Cut(target, source)
		c.net.Cut(source, target)
	case "Verifying":
		c.stuck.Store(true)
		c.sleep(5 * time.Second)
		c.stuck.Store(false)
	}
}

func (c *cell) tokenTTL() time.Duration {
	switch {
	case c.fault != "token expires":
		return 30 * time.Second
	case c.state == "Preparing":
		return cellDelay / 2 // it has expired when it arrives
	case c.state == "TransferringState":
		return 2 * cellDelay // so has this one, when the target shows it to the source
	}
	return 500 * time.Millisecond
}

func (c *cell) configure(cfg *config.Director) {
	cfg.TokenTTL, cfg.CheckpointInterval, cfg.WindowTokens = c.tokenTTL(), 0, 4
	cfg.AttachTimeout, cfg.TransferTimeout, cfg.WorkerWait = time.Second, 3*time.Second, 6*time.Second
	if c.state == "WaitingConfirmation" {
		cfg.Confirm, cfg.ConfirmTimeout = "operator", 4*time.Second
	}
	if c.fault == "time is up" && c.state == "CapturingState" {
		cfg.TransferTimeout = 200 * time.Millisecond
	}
	if c.fault == "time is up" {
		cfg.AttachTimeout, cfg.FirstTokenTimeout = 200*time.Millisecond, 4*time.Second
	}
}

// play plays the cell and checks its end.
func (c *cell) play(t *testing.T, happen func(*cell)) {
	synctest.Test(t, func(t *testing.T) {
		c.cluster = newCluster(t, 1, simtest.Options{Path: simtest.Path{Delay: cellDelay}}, t.Logf)
		defer c.close()
		c.strict = true
		c.up()
		tokens := cellTokens
		interval := cellInterval
		if c.fault == "client stalls" {
			tokens, interval = stallTokens, 200*time.Millisecond
		}
		c.spread(interval)
		read := c.begin(t, tokens)
		swapped := c.swap(t)
		c.await(t)
		happen(c)
		swapped()
		if c.state != "Initiating" {
			c.release()
		}
		close(c.unread)
		c.check(t, read(), tokens)
	})
}

// up starts the director and connects client and operator. The operator is next to the director, so that it sees each
// state in time.
func (c *cell) up() {
	c.engine = &padded{stuck: &c.stuck}
	c.direct(c.configure)
	for _, host := range []*simtest.Host{c.net.Host("operator")} {
		c.net.SetPath(host, c.director, simtest.Path{Delay: 10 * time.Microsecond})
		c.net.SetPath(c.director, host, simtest.Path{Delay: 10 * time.Microsecond})
	}
	var err error
	if c.conn, err = c.dial("client"); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.conn.Close() }) //nolint:errcheck // the run is over
	c.op, err = operator.Dial(c.ctx, "director:61001", operator.Options{TLS: c.sources[identity.Operator], Network: c.net.Host("operator")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.op.Close() }) //nolint:errcheck // the run is over
}

// spread starts the workers: the source, the target, and one for failovers.
func (c *cell) spread(interval time.Duration) {
	for i := range 3 {
		c.work(func(cfg *config.Worker) {
			cfg.TokenInterval, cfg.TransferRate, cfg.Capacity = interval, 200<<10, 10
			if i == 1 && c.state == "Initiating" {
				cfg.Capacity = 1
			}
		})
		c.sleep(301 * time.Millisecond)
	}
}

// begin opens the stream, on worker-0, and where the target has to be full another one, on worker-1. It returns the
// function that waits for the stream's end.
func (c *cell) begin(t *testing.T, tokens int) (read func() outcome) {
	var err error
	if c.stream, err = c.conn.Generate(c.ctx, connswap.Request{MaxTokens: uint32(tokens)}); err != nil {
		t.Fatal(err)
	}
	c.unread, c.release = make(chan struct{}), func() {}
	stalls := c.fault == "client stalls"
	result, fourth := make(chan outcome, 1), make(chan struct{})
	c.wg.Go(func() {
		if stalls {
			<-c.unread
		}
		result <- readStream(c.stream, func(sequence uint64) {
			if sequence == 4 {
				close(fourth)
			}
		})
	})
	c.sleep(100 * time.Millisecond)
	if c.state == "Initiating" {
		c.fill(t)
	}
	if stalls {
		c.sleep(15 * time.Second) // until no more fits between worker and client
		c.blocked(t)
	} else {
		<-fourth
		c.sleep(50 * time.Millisecond)
	}
	return func() outcome { return <-result }
}

// fill takes the target's only place.
func (c *cell) fill(t *testing.T) {
	filler, err := c.conn.Generate(c.ctx, connswap.Request{MaxTokens: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c.release = filler.Close
	c.wg.Go(func() { readStream(filler, nil) })
}

// blocked checks that the client holds the stream up.
func (c *cell) blocked(t *testing.T) {
	before := c.status1(t)
	c.sleep(2 * time.Second)
	if after := c.status1(t); before.Sequence != after.Sequence || after.Sequence <= after.Sent {
		t.Fatalf("the client's stall holds nobody up: %+v, then %+v", before, after)
	}
}

func (c *cell) status1(t *testing.T) operator.Stream {
	status, err := c.op.Status(c.ctx)
	if err != nil || len(status.Connections) != 1 || len(status.Connections[0].Streams) == 0 {
		t.Fatalf("status %+v, %v", status, err)
	}
	return status.Connections[0].Streams[0]
}

// swap asks for the swap, and returns the function that waits for the answer.
func (c *cell) swap(t *testing.T) (wait func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.giveUp = cancel
	done := make(chan struct{})
	c.wg.Go(func() {
		defer close(done)
		_, _ = c.op.Swap(ctx, c.conn.ID(), 1, "worker-1") // how it went is in the record
	})
	if c.state == "WaitingConfirmation" {
		c.release = func() { _ = c.op.Confirm(c.ctx, c.conn.ID(), 1) } // if it still waits
	}
	return func() {
		if c.end == "Completed" {
			c.release()
		}
		<-done
	}
}

// await waits until the swap is in the state.
func (c *cell) await(t *testing.T) {
	for range 5000 {
		status, err := c.op.Status(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range status.Swaps {
			if s.State == c.state {
				return
			}
		}
		if c.past() != nil {
			break
		}
		c.sleep(3 * time.Millisecond)
	}
	t.Fatalf("the swap was never seen in %s; record %+v", c.state, c.past())
}

// past returns the record of the planned swap, once it is over.
func (c *cell) past() *migration.Record {
	var over struct{ Swaps []migration.Record }
	if err := c.cluster.status("/v1/swaps", &over); err != nil {
		c.t.Error(err)
	}
	i := slices.IndexFunc(over.Swaps, func(r migration.Record) bool { return r.Kind == "planned" })
	if i < 0 {
		return nil
	}
	return &over.Swaps[i]
}

// check holds the end against what the table says.
func (c *cell) check(t *testing.T, o outcome, tokens int) {
	var kinds []string
	for _, s := range o.swaps {
		kinds = append(kinds, s.Kind)
	}
	want := map[string]struct {
		state string
		kinds []string
		err   error
	}{
		"Aborted":          {"Aborted", nil, nil},
		"Failed, failover": {"Failed", []string{"failover"}, nil},
		"Completed":        {"Completed", []string{"planned"}, nil},
		"cancelled":        {"Aborted", nil, connswap.ErrClosed},
	}[c.end]
	if want.state == "" {
		t.Fatalf("unknown end %q", c.end)
	}
	record := c.past()
	if record == nil || record.State != want.state || !slices.Equal(kinds, want.kinds) || !errors.Is(o.err, want.err) {
		t.Errorf("ended in %+v, the client saw swaps %v and %v; want %+v", record, kinds, o.err, want)
	}
	if record != nil && want.state != "Completed" && (record.Reason == "" || record.StateMS[c.state] == 0) {
		t.Errorf("the record does not say why, or in which state: %+v", record)
	}
	text := paddedText(tokens)
	if want.err == nil && o.text != text || !strings.HasPrefix(text, o.text) {
		t.Errorf("%d tokens, and the text is not that of a run without faults", o.tokens)
	}
	c.release()
	c.sleep(5 * time.Second)
	for _, w := range c.registered() {
		if w.Sessions != 0 {
			t.Errorf("%s still has %d sessions", w.Worker, w.Sessions)
		}
	}
}

// readStream reads a stream to its end.
func readStream(stream *connswap.Stream, at func(sequence uint64)) (o outcome) {
	for event, err := range stream.Events() {
		if err != nil {
			o.err = err
			return o
		}
		switch e := event.(type) {
		case connswap.Swapped:
			o.swaps = append(o.swaps, e)
		case connswap.Token:
			o.tokens, o.text = e.Sequence, o.text+e.Text
			if at != nil {
				at(e.Sequence)
			}
		}
	}
	return o
}

// padded is an engine that counts, with tokens so long that a client which reads nothing is soon full, and with a state
// that takes a while to transfer.
type padded struct{ stuck *atomic.Bool }

const paddedSize = 300 << 10

func (*padded) Name() string        { return "padded" }
func (*padded) Fingerprint() string { return "padded/1" }

func (p *padded) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	return &paddedCount{padded: p, n: len(prefix), limit: engine.NewLimit(req, len(prefix), 1)}, nil
}

func (p *padded) Restore(_ context.Context, req engine.Request, state []byte) (engine.Generation, error) {
	if len(state) != paddedSize {
		return nil, fmt.Errorf("a state of %d bytes", len(state))
	}
	n := int(binary.BigEndian.Uint64(state))
	return &paddedCount{padded: p, n: n, limit: engine.NewLimit(req, n, 1)}, nil
}

type paddedCount struct {
	*padded
	n     int
	limit engine.Limit
}

func (c *paddedCount) Next(ctx context.Context) (engine.Chunk, error) {
	for c.stuck.Load() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return engine.Chunk{}, context.Cause(ctx)
		}
	}
	if err := c.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	c.n++
	return engine.Chunk{Text: []byte(paddedToken(c.n))}, nil
}

func (c *paddedCount) Capture(buf []byte) ([]byte, error) {
	r := rand.NewChaCha8([32]byte{})
	noise := make([]byte, paddedSize)
	_, _ = r.Read(noise) // never fails
	binary.BigEndian.PutUint64(noise, uint64(c.n))
	return append(buf, noise...), nil
}

func (*paddedCount) Close() error { return nil }

func paddedToken(n int) string { return fmt.Sprintf("%-4000d", n) }

func paddedText(tokens int) string {
	var text strings.Builder
	for n := range tokens {
		text.WriteString(paddedToken(n + 1))
	}
	return text.String()
}
