//go:build !unix

package mgmt

// Descriptors returns how many files and sockets the process may have open, where there is no small limit.
func Descriptors() uint64 { return 4096 }
