package director

import (
	"sync"

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

// list returns the swaps kept, the oldest first, and how many there were in all.
func (h *history) list() ([]migration.Record, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total <= historySize {
		return append([]migration.Record{}, h.swaps...), h.total
	}
	first := h.total % historySize
	return append(append([]migration.Record{}, h.swaps[first:]...), h.swaps[:first]...), h.total
}
