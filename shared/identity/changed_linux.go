package identity

import (
	"os"
	"syscall"
)

// changed is when the system changed anything about a file last, in nanoseconds. Unlike the time of its content nobody sets
// that: so a file is another one if it was written again, whatever a copy has kept.
func changed(info os.FileInfo) int64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ctim.Nano()
}
