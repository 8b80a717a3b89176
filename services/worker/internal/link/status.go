package link

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/connswap/connswap/shared/wire"
)

// Counters are what a Server has done since its start.
type Counters struct {
	Tokens   uint64               `json:"tokens"`
	Attaches uint64               `json:"attaches"`
	Cancels  uint64               `json:"cancels"`
	Refusals map[wire.Code]uint64 `json:"refusals"`
}

// Counters returns the counts of this moment.
func (s *Server) Counters() Counters {
	c := s.counters.read()
	c.Tokens = s.deps.Sessions.Chunks()
	return c
}

type counters struct {
	attaches atomic.Uint64
	cancels  atomic.Uint64

	mu       sync.Mutex
	refusals map[wire.Code]uint64
}

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
	return Counters{Attaches: c.attaches.Load(), Cancels: c.cancels.Load(), Refusals: refusals}
}
