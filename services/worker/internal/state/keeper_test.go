package state

import (
	"testing"
	"time"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// However long a director wants a state to be tried for, there is an end.
func TestPatience(t *testing.T) {
	for ms, want := range map[uint64]time.Duration{
		0: 0, 1: time.Millisecond, 60_000: time.Minute, 600_000: pullTimeout, 600_001: pullTimeout,
		1<<63/1_000_000 + 1: pullTimeout, 1<<64 - 1: pullTimeout,
	} {
		if got := fetchTimeout(&wirepb.Fetch{TimeoutMs: ms}); got != want {
			t.Errorf("%d ms: %v, want %v", ms, got, want)
		}
	}
}
