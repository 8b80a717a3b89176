//go:build unix

package identity

import (
	"os"
	"syscall"
)

// lock waits until no other process holds the file. The system unlocks it if the process dies.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close() //nolint:errcheck // the first error matters
		return nil, err
	}
	return func() { file.Close() }, nil //nolint:errcheck // nothing was written
}
