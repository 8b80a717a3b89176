//go:build !unix

package mgmt

// descriptors returns how many files and sockets the process may have open, where there is no small limit.
func descriptors() uint64 { return 4096 }
