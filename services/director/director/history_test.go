package director

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/migration"
)

// TestHistoryPages reads what is kept of more swaps than are kept, while others come and push the oldest out.
func TestHistoryPages(t *testing.T) {
	h := newHistory()
	swaps, first, total := h.list(0, 10)
	require.NotNil(t, swaps)
	require.Empty(t, swaps)
	require.Equal(t, uint64(1), first)
	require.Zero(t, total)
	added := uint64(0)
	add := func(n int) {
		for range n {
			added++
			h.add(migration.Record{StreamID: added})
		}
	}
	add(3)
	swaps, _, total = h.list(1, 10)
	require.Equal(t, []migration.Record{{StreamID: 2}, {StreamID: 3}}, swaps)
	require.Equal(t, 3, total)

	add(2 * historySize)
	var last uint64
	for pages := 0; ; pages++ {
		swaps, first, _ := h.list(last, 1000)
		for i, s := range swaps {
			require.Greater(t, s.StreamID, last)
			require.Equal(t, first+uint64(i), s.StreamID)
			last = s.StreamID
		}
		if len(swaps) < 1000 {
			require.Equal(t, added, last)
			require.GreaterOrEqual(t, pages, 4)
			break
		}
		add(100)
	}
}
