//go:build unix

package mgmt

import "syscall"

// Descriptors returns how many files and sockets the process may have open.
func Descriptors() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return uint64(limit.Cur)
}
