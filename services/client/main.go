// The client of connswap: client generate prints what a director has generated.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/connswap/connswap/services/client/internal/cli"
	"github.com/connswap/connswap/shared/run"
)

func main() {
	// A reader of our output that goes away is an error of the write then, not the end of the process: the
	// director is to hear of it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := run.SignalContext()
	code := cli.Run(ctx, cli.Process{
		Args:     os.Args[1:],
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: isTerminal(os.Stdout),
	})
	stop()
	os.Exit(code)
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
