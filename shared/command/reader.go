package command

import (
	"errors"
	"io"
	"syscall"
)

// ReaderLeft reports whether an output broke because its reader wants no more, such as head(1).
func ReaderLeft(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
