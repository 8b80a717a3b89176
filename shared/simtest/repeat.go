package simtest

import (
	"runtime"
	"runtime/debug"
	"testing"
	"testing/cryptotest"
)

// repeatMemory is where garbage is collected after all, in bytes.
const repeatMemory = 2 << 30

// Repeatable makes a simulation do the same each time it runs with the same seed: until t ends, there is one
// processor, no garbage is collected (collecting it reorders goroutines), and crypto/rand depends on the seed.
// Call it before synctest.Test, and not in a parallel test. It also sets the seed anew if called again.
func Repeatable(t *testing.T, seed uint64) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	procs := runtime.GOMAXPROCS(1)
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(repeatMemory)
	runtime.GC()
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	})
}
