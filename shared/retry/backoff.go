// Package retry spaces attempts at what may work the next time.
package retry

import (
	"context"
	"crypto/rand"
	"math/big"
	"time"
)

// Backoff spaces attempts: each wait is up to twice the one before, from First to Most. It is used by one goroutine.
type Backoff struct {
	First, Most time.Duration

	ceiling time.Duration
}

// Next returns how long to wait now, half of it at random: not all who lost the same peer shall come back at once.
func (b *Backoff) Next() time.Duration {
	b.ceiling = min(max(2*b.ceiling, b.First), b.Most)
	// crypto/rand, because a simulation can repeat that.
	jitter, err := rand.Int(rand.Reader, big.NewInt(int64(b.ceiling/2)+1))
	if err != nil {
		return b.ceiling // it never fails
	}
	return b.ceiling/2 + time.Duration(jitter.Int64())
}

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.ceiling = 0 }

// Sleep is false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
