// Package sessiontest has a client in memory, for tests of whatever runs sessions.
package sessiontest

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
)

// Client is a leg in memory, to a client that the test lets read. At first it takes everything.
type Client struct {
	log   *stream.Log
	tell  func(any)
	clock *clock.StallProof

	mu     sync.Mutex
	closed bool
	cursor stream.Cursor
	read   []byte
	full   bool          // it takes nothing
	since  time.Duration // stall-proof time at which it had to take something, and did not; 0 if it need not
}

var _ session.Leg = (*Client)(nil)

// New returns a leg to a client that stands at a cursor.
func New(log *stream.Log, at stream.Cursor, tell func(any), clock *clock.StallProof) *Client {
	return &Client{log: log, cursor: at, tell: tell, clock: clock}
}

// Push is part of session.Leg.
func (c *Client) Push() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.push()
}

func (c *Client) push() {
	for !c.closed {
		b, next := c.log.Read(c.cursor, 1<<20)
		if len(b) == 0 {
			return
		}
		if c.full {
			c.since = cmp.Or(c.since, c.clock.Now())
			return
		}
		c.read, c.cursor = append(c.read, b...), next
		if c.log.Taken(next) {
			c.tell(session.Delivered{})
		}
	}
}

// Stalled is part of session.Leg.
func (c *Client) Stalled() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since == 0 {
		return 0
	}
	return c.clock.Since(c.since)
}

// Close is part of session.Leg.
func (c *Client) Close(error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// Read returns the frames that the client has read since the last call.
func (c *Client) Read() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.read
	c.read = nil
	return b
}

// Stall has the client read nothing any more.
func (c *Client) Stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = true
}

// Resume has it read on.
func (c *Client) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full, c.since = false, 0
	c.push()
	c.tell(session.ClientRead{})
}

// Wake has the session look at the time.
func (c *Client) Wake() { c.tell(session.ClientRead{}) }

// Leave breaks the client's stream.
func (c *Client) Leave() { c.tell(session.ClientLeft{Err: errors.New("the client has gone")}) }

// Cancel has the client say that it does not want the stream any more.
func (c *Client) Cancel() {
	c.tell(session.ClientLeft{Cancelled: true, Err: errors.New("the client wants no more")})
}
