package openai

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
)

// batchMost is how much of a log is read at once, in bytes: as events it is up to forty times as long, which a client that reads nothing
// has the director hold.
const batchMost = 512

// leg carries a stream to the goroutine that answers an HTTP request: that one reads the log, and writes to its client. A leg never
// writes itself, so that a client which reads slowly holds up nobody.
type leg struct {
	log   *stream.Log
	clock *clock.StallProof
	tell  func(event any)

	wake      chan struct{}              // capacity 1: something may have happened
	closed    chan struct{}              // closed by Close
	err       error                      // for which it was closed; set before closed is
	interrupt func(within time.Duration) // ends a write that the client holds up
	left      chan struct{}              // closed once nobody reads the log through the leg any more
	leaving   sync.Once

	writing atomic.Int64 // stall-proof time at which the write began that is under way, plus one; 0 for none
	cursor  stream.Cursor
}

var _ session.Leg = (*leg)(nil)

// lastWords is how long a client may hold up the end of an answer that is broken off.
const lastWords = time.Second

// open returns what opens the leg; interrupt has to make writes to the client end within a time. The leg is set once that was
// called.
func open(to **leg, clock *clock.StallProof, interrupt func(within time.Duration)) session.Open {
	return func(log *stream.Log, tell func(any)) session.Leg {
		*to = newLeg(log, clock, tell, interrupt)
		return *to
	}
}

func newLeg(log *stream.Log, clock *clock.StallProof, tell func(any), interrupt func(within time.Duration)) *leg {
	return &leg{
		log: log, clock: clock, tell: tell, interrupt: interrupt,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), left: make(chan struct{}),
	}
}

// Push wakes whoever reads through the leg: there is something new, or there will be nothing any more.
func (g *leg) Push() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Stalled returns for how long the client has taken nothing of what is written to it.
func (g *leg) Stalled() time.Duration {
	since := g.writing.Load()
	if since == 0 {
		return 0
	}
	return g.clock.Since(time.Duration(since - 1))
}

// Close ends the leg, and waits until nobody reads through it any more.
func (g *leg) Close(err error) {
	g.err = err
	close(g.closed)
	g.Push()
	switch {
	case errors.Is(err, session.ErrClientStalled):
		g.interrupt(0)
	case err != nil:
		g.interrupt(lastWords)
	}
	<-g.left
}

// ended reports whether the leg was closed.
func (g *leg) ended() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// leave says that nobody reads through the leg any more.
func (g *leg) leave() { g.leaving.Do(func() { close(g.left) }) }

// read returns the next frames of the log; none if there are none yet.
func (g *leg) read() []byte {
	frames, next := g.log.Read(g.cursor, batchMost)
	g.cursor = next
	return frames
}

// watched calls f, which writes to the client, who is held to have stalled if that takes long.
func (g *leg) watched(f func() error) error {
	g.writing.Store(int64(g.clock.Now()) + 1)
	defer g.writing.Store(0)
	return f()
}

// write calls f, which writes to the client, for what was read last, and takes note that the client has that.
func (g *leg) write(f func() error) error {
	if err := g.watched(f); err != nil {
		return err
	}
	switch all := g.log.Taken(g.cursor); {
	case all:
		g.tell(session.Delivered{})
	case g.log.Exhausted(): // the worker waits for this, and nothing else would bring it on
		g.tell(session.ClientRead{})
	}
	return nil
}
