//go:build !linux

package identity

import "os"

// changed is not known here: a file is told from its successor by what it is, its size and its time.
func changed(os.FileInfo) int64 { return 0 }
