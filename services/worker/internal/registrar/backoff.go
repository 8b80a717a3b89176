package registrar

import (
	"context"
	"crypto/rand"
	"math/big"
	"time"
)

const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// backoff spaces attempts: each wait is up to twice the one before, within bounds. The zero backoff is ready.
type backoff struct{ ceiling time.Duration }

// next returns how long to wait now, half of it at random: many workers shall not come all at once.
func (b *backoff) next() time.Duration {
	b.ceiling = min(max(2*b.ceiling, firstWait), lastWait)
	// crypto/rand, because a simulation can repeat that.
	jitter, err := rand.Int(rand.Reader, big.NewInt(int64(b.ceiling/2)+1))
	if err != nil {
		return b.ceiling // it never fails
	}
	return b.ceiling/2 + time.Duration(jitter.Int64())
}

// reset starts over, after a success.
func (b *backoff) reset() { b.ceiling = 0 }

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
