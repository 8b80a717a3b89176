package server

import (
	"cmp"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/connswap/connswap/shared/wire"
)

// Session is one session as it is at a moment.
type Session struct {
	ID           uint64 `json:"session"`
	Epoch        uint64 `json:"epoch"`
	Director     string `json:"director"`
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id"`
	Sequence     uint64 `json:"sequence"`
	Credit       uint64 `json:"credit"`
}

func (s Session) compare(other Session) int {
	return cmp.Or(cmp.Compare(s.ConnectionID, other.ConnectionID), cmp.Compare(s.StreamID, other.StreamID), cmp.Compare(s.Epoch, other.Epoch))
}

// Counters are what a Server has done since its start.
type Counters struct {
	Tokens   uint64               `json:"tokens"`
	Attaches uint64               `json:"attaches"`
	Cancels  uint64               `json:"cancels"`
	Refusals map[wire.Code]uint64 `json:"refusals"`
}

// Counters returns the counts of this moment.
func (s *Server) Counters() Counters { return s.counters.read() }

type counters struct {
	tokens   atomic.Uint64
	attaches atomic.Uint64
	cancels  atomic.Uint64

	mu       sync.Mutex
	refusals map[wire.Code]uint64
}

func (c *counters) made()      { c.tokens.Add(1) }
func (c *counters) attached()  { c.attaches.Add(1) }
func (c *counters) cancelled() { c.cancels.Add(1) }

func (c *counters) refused(code wire.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = make(map[wire.Code]uint64)
	}
	c.refusals[code]++
}

func (c *counters) read() Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	refusals := maps.Clone(c.refusals)
	if refusals == nil {
		refusals = map[wire.Code]uint64{}
	}
	return Counters{Tokens: c.tokens.Load(), Attaches: c.attaches.Load(), Cancels: c.cancels.Load(), Refusals: refusals}
}
