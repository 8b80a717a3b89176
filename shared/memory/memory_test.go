package memory

import (
	"errors"
	"math"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/stretchr/testify/require"
)

func TestDetect(t *testing.T) {
	const none = math.MaxInt64
	fails := func() (uint64, error) { return 0, errors.New("no such file") }
	for name, test := range map[string]struct {
		runtime         int64
		cgroup, machine memlimit.Provider
		want            Limit
	}{
		"said":                         {1 << 30, memlimit.Limit(1 << 29), memlimit.Limit(1 << 34), Limit{1 << 30, "GOMEMLIMIT"}},
		"a container":                  {none, memlimit.Limit(1000), memlimit.Limit(1 << 34), Limit{900, "cgroup"}},
		"a container larger than life": {none, memlimit.Limit(1 << 62), memlimit.Limit(1 << 34), Limit{1 << 33, "machine"}},
		"a machine":                    {none, fails, memlimit.Limit(1 << 34), Limit{1 << 33, "machine"}},
		"a container somewhere":        {none, memlimit.Limit(1000), fails, Limit{900, "cgroup"}},
		"nobody knows":                 {none, fails, fails, Limit{}},
	} {
		require.Equal(t, test.want, detect(test.runtime, test.cgroup, test.machine), name)
	}
}

func TestBudget(t *testing.T) {
	require.Equal(t, int64(77), Limit{Bytes: 1000}.Budget(77))
	require.Equal(t, int64(500), Limit{Bytes: 1000}.Budget(0))
	require.Greater(t, Limit{}.Budget(0), int64(1<<60))
	require.Equal(t, 250, Limit{Bytes: 1000}.Part(4, 1<<30))
	require.Equal(t, 100, Limit{Bytes: 1000}.Part(4, 100))
	require.Equal(t, 1<<30, Limit{}.Part(4, 1<<30))
}
