package telemetry

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadProcess(t *testing.T) {
	runtime.GC() // what tests before have left does not count
	before := ReadProcess()
	done := make(chan struct{})
	for range 1000 {
		go func() { <-done }()
	}
	held := make([]byte, 32<<20)
	runtime.GC()
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	after := ReadProcess()
	close(done)
	require.NoError(t, file.Close())
	runtime.KeepAlive(held)
	require.GreaterOrEqual(t, after.Goroutines, before.Goroutines+900, "those of tests before may end meanwhile")
	require.GreaterOrEqual(t, after.HeapBytes, before.HeapBytes+30<<20)
	if before.Descriptors > 0 {
		require.Equal(t, before.Descriptors+1, after.Descriptors)
	}
}
