package container

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/identity"
)

// crowd are streams on a few connections that this process reads itself: a hundred containers would be too much.
type crowd struct {
	cluster *cluster
	members []*member
}

// member is one stream. What it gets is noted as the client's own program writes it.
type member struct {
	request request

	mu     sync.Mutex
	events transcript
	ended  bool  // nothing more will come
	err    error // how it ended; nil after the last token
}

// crowd starts streams on each of a number of connections, each with a seed of its own, and waits until all have tokens.
func (c *cluster) crowd(t *testing.T, connections, streams int, r request) *crowd {
	t.Helper()
	all := &crowd{cluster: c}
	for range connections {
		conn := c.connect(t)
		var members []*member
		for range streams {
			members = append(members, &member{request: r})
			r.seed++
		}
		c.run.Go(func() { read(c.ctx, conn, members) })
		all.members = append(all.members, members...)
	}
	all.reads(t, 3)
	return all
}

// connect opens a connection to the director from outside of its network.
func (c *cluster) connect(t *testing.T) *connswap.Conn {
	t.Helper()
	addr, err := c.director.published(t.Context(), directorUser)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connswap.Dial(t.Context(), addr, connswap.Options{TLS: c.source(t, identity.Client), Name: "crowd"})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// read reads the streams of one connection to their ends.
func read(ctx context.Context, conn *connswap.Conn, members []*member) {
	defer conn.Close() //nolint:errcheck // all that counts has been read
	var reading sync.WaitGroup
	defer reading.Wait()
	for _, m := range members {
		reading.Go(func() {
			err := m.read(ctx, conn)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.ended, m.err = true, err
		})
	}
}

func (m *member) read(ctx context.Context, conn *connswap.Conn) error {
	start, err := conn.Proof()
	if err != nil {
		return err
	}
	m.note(event{Event: "connected", ConnectionID: conn.ID(), ODCID: start.ODCID, Exporter: start.Exporter})
	stream, err := conn.Generate(ctx, connswap.Request{
		Prompt: m.request.prompt, MaxTokens: uint32(m.request.tokens), Seed: m.request.seed,
	})
	if err != nil {
		return err
	}
	now := event{ConnectionID: conn.ID(), StreamID: stream.ID()} // where it stands
	for what, err := range stream.Events() {
		if err != nil {
			return err
		}
		var noted event
		if now, noted, err = now.follow(conn, what); err != nil {
			return err
		}
		m.note(noted)
	}
	return nil
}

// follow returns where the stream stands after an event, and the line of the event.
func (e event) follow(conn *connswap.Conn, what connswap.Event) (now, line event, err error) {
	line = e
	switch what := what.(type) {
	case connswap.Assigned:
		e.Worker, e.Epoch = what.Worker, what.Epoch
		line.Event, line.Worker, line.Epoch = "assigned", what.Worker, what.Epoch
	case connswap.Waiting:
		line.Event, line.Message = "waiting", what.Reason
	case connswap.Token:
		e.Sequence = what.Sequence
		line.Event, line.Sequence, line.Text = "token", what.Sequence, what.Text
		line.Worker, line.Epoch = what.Worker, what.Epoch
	case connswap.Swapped:
		e.Worker, e.Epoch = what.To, what.Epoch
		line.Event, line.Worker, line.Epoch, line.Sequence = "swapped", what.To, what.Epoch, what.Sequence
		line.FromWorker, line.ToWorker, line.Kind, line.Cause = what.From, what.To, what.Kind, what.Cause
		line.GapMS, line.IntervalMS = inMS(what.Gap), inMS(what.Interval)
		line.ODCID, line.Exporter = what.Proof.ODCID, what.Proof.Exporter
	case connswap.Done:
		var end connswap.Proof
		end, err = conn.Proof()
		line.Event, line.FinishReason, line.Tokens = "done", what.FinishReason, what.Tokens
		line.Swaps, line.Digest, line.ODCID, line.Exporter = what.Swaps, what.Digest.String(), end.ODCID, end.Exporter
	}
	return e, line, err
}

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (m *member) note(e event) {
	e.Time = time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// look returns what came so far, whether that is all, and the error that ended it.
func (m *member) look() (events transcript, ended bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.events[:len(m.events):len(m.events)], m.ended, m.err
}

// reads waits until each stream has so many more tokens.
func (c *crowd) reads(t *testing.T, more uint64) {
	t.Helper()
	want := make([]uint64, len(c.members))
	for i, m := range c.members {
		events, _, _ := m.look()
		want[i] = events.sequence() + more
	}
	for i, m := range c.members {
		m.until(t, fmt.Sprintf("has read %d tokens", want[i]), func(events transcript) bool { return events.sequence() >= want[i] })
	}
}

// until waits until what came satisfies ok. It fails the test if the stream ends before.
func (m *member) until(t *testing.T, what string, ok func(transcript) bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("the stream of seed %d %s", m.request.seed, what), func() (bool, error) {
		events, ended, err := m.look()
		if ok(events) {
			return true, nil
		}
		if ended && err == nil {
			err = errors.New("it is complete")
		}
		return false, err
	})
}

// running fails the test unless all streams go on: otherwise what happened to the workers did not concern them.
func (c *crowd) running(t *testing.T) {
	t.Helper()
	for _, m := range c.members {
		if events, ended, err := m.look(); ended {
			t.Fatalf("the stream of seed %d has ended at token %d of %d, before the test was over (%v)",
				m.request.seed, events.sequence(), m.request.tokens, err)
		}
	}
}

// hurry brings all streams to their ends by moving them to a worker of many tokens a second: the test before it takes as
// long as it has to, and not as long as its text. That is one more planned swap for each stream, or two, because of a drain.
func (c *crowd) hurry(t *testing.T) {
	t.Helper()
	c.running(t)
	fast := c.cluster.worker("worker-fast", workerImage)
	fast.env["WORKER_TOKEN_INTERVAL"] = "2ms"
	if _, err := c.cluster.start(t.Context(), fast); err != nil {
		t.Fatal(err)
	}
	c.cluster.serving(t, fast.name)
	op := c.cluster.operator(t, identity.Operator)
	for _, name := range []string{"worker-a", "worker-b"} {
		if _, err := op.Drain(t.Context(), name, time.Minute, false, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// at returns a stream that a worker serves.
func (c *crowd) at(t *testing.T, worker string) *member {
	t.Helper()
	for _, m := range c.members {
		if events, ended, _ := m.look(); !ended && events.worker() == worker {
			return m
		}
	}
	t.Fatalf("no stream is on %s", worker)
	return nil
}

// id returns the connection that the stream is on, and its number there.
func (m *member) id() (connection string, stream uint64) {
	events, _, _ := m.look()
	return events[len(events)-1].ConnectionID, events[len(events)-1].StreamID
}

// survives waits for the ends of all streams, and proves for each of them what cluster.survives proves.
func (c *crowd) survives(t *testing.T) []transcript {
	t.Helper()
	var all []transcript
	for _, m := range c.members {
		m.until(t, "ends", func(events transcript) bool { return len(events) > 0 && events[len(events)-1].Event == "done" })
		events, _, _ := m.look()
		if err := errors.Join(checkClient(m.request, events), c.cluster.checkDirector(t, events)); err != nil {
			t.Fatalf("the stream of seed %d: %v", m.request.seed, err)
		}
		all = append(all, events)
	}
	return all
}
