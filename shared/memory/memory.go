// Package memory finds out how much memory a process may have, and divides it.
package memory

import (
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Limit is how much memory a process may have, in bytes, and what says so: "GOMEMLIMIT", "cgroup" (a container's limit)
// or "machine". The zero value is without a limit.
type Limit struct {
	Bytes int64  `json:"limit_bytes"`
	From  string `json:"limit_from"`
}

const (
	// usable is the part of a container's memory that the Go runtime may have: the rest is for what it does not count.
	usable = 0.9
	// ofMachine is the part of a machine's memory that one process takes for its own where nobody says anything.
	ofMachine = 0.5
	unlimited = math.MaxInt64
)

// Detect returns the limit of this process: GOMEMLIMIT, else most of what its container may have, which becomes the
// garbage collector's limit too, else half of what the machine has.
func Detect() Limit {
	limit := detect(debug.SetMemoryLimit(-1), memlimit.FromCgroup, memlimit.FromSystem)
	if limit.From == "cgroup" {
		debug.SetMemoryLimit(limit.Bytes)
	}
	return limit
}

// detect is Detect for a runtime's limit, a container's and a machine's.
func detect(runtime int64, cgroup, machine memlimit.Provider) Limit {
	if runtime < unlimited {
		return Limit{runtime, "GOMEMLIMIT"}
	}
	all, err := machine()
	if bytes, err := memlimit.ApplyRatio(cgroup, usable)(); err == nil && bytes < unlimited && (all == 0 || bytes < all) {
		return Limit{int64(bytes), "cgroup"}
	}
	if err != nil || all == 0 || all > unlimited {
		return Limit{}
	}
	return Limit{int64(float64(all) * ofMachine), "machine"}
}

// Part returns a part of the limit, one of so many; but most where that is less.
func (l Limit) Part(of int64, most int) int {
	if l.Bytes == 0 {
		return most
	}
	return int(min(l.Bytes/of, int64(most)))
}

// Budget returns how many bytes others may make the process hold: what is configured, else half of the limit. The
// other half is for copies, and for what the garbage collector has not found yet.
func (l Limit) Budget(configured int) int64 {
	if configured > 0 {
		return int64(configured)
	}
	return int64(l.Part(2, unlimited/2))
}
