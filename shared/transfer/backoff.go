package transfer

import (
	"context"
	"crypto/rand"
	"math/big"
	"time"
)

const (
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
)

// backoff spaces attempts: each wait is up to twice the one before, within bounds. The zero backoff is ready.
type backoff struct{ ceiling time.Duration }

// sleep waits until the next attempt, half of the time at random: not all shall come back to a source at once.
// It is false if ctx ended first.
func (b *backoff) sleep(ctx context.Context) bool {
	b.ceiling = min(max(2*b.ceiling, firstWait), lastWait)
	wait := b.ceiling
	// crypto/rand, because a simulation can repeat that.
	if jitter, err := rand.Int(rand.Reader, big.NewInt(int64(wait/2))); err == nil { // it never fails
		wait -= time.Duration(jitter.Int64())
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
