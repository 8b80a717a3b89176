package director

import (
	"sync"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/shared/migration"
)

// history has the newest historySize swaps that are over, for /v1/swaps. It is safe for concurrent use.
type history struct {
	mu    sync.Mutex
	swaps []migration.Record // a ring once it is full
	total int
}

const historySize = 4096

func newHistory() *history { return &history{} }

// observe records handovers that are over, placements aside.
func (h *history) observe(e event.Event) {
	if over, ok := e.Body.(event.HandoverEnded); ok && over.Record.Kind != migration.Placement.String() {
		h.add(over.Record)
	}
}

// add records a swap that is over, in place of the oldest one where there are too many.
func (h *history) add(r migration.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.swaps) < historySize {
		h.swaps = append(h.swaps, r)
	} else {
		h.swaps[h.total%historySize] = r
	}
	h.total++
}

// list returns the swaps kept that follow the one with the number after (the first of all is 1), the oldest first, and no
// more than limit; the number of the first one returned; and how many swaps there were in all.
func (h *history) list(after uint64, limit int) (swaps []migration.Record, first uint64, total int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = max(after, uint64(h.total-len(h.swaps))) + 1
	swaps = []migration.Record{}
	for n := first; n <= uint64(h.total) && len(swaps) < limit; n++ {
		swaps = append(swaps, h.swaps[(n-1)%historySize])
	}
	return swaps, first, h.total
}
