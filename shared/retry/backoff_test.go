package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/retry"
)

func TestWaitsGrowWithinBounds(t *testing.T) {
	const first, most = 10 * time.Millisecond, 60 * time.Millisecond
	b := retry.Backoff{First: first, Most: most}
	for range 2 {
		for ceiling := first; ceiling < 8*most; ceiling *= 2 {
			if wait, top := b.Next(), min(ceiling, most); wait < top/2 || wait > top {
				t.Errorf("waits %v, want %v to %v", wait, top/2, top)
			}
		}
		b.Reset()
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if !retry.Sleep(ctx, time.Millisecond) || retry.Sleep(ctx, time.Hour) || time.Since(start) != time.Second {
			t.Errorf("after %v", time.Since(start))
		}
	})
}
