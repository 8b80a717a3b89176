// The client of connswap: client generate prints what a director has generated; the other commands operate a cluster.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/connswap/connswap/services/client/internal/cli"
)

func main() {
	// A reader of our output that goes away is an error of the write then, not the end of the process: the
	// director is to hear of it.
	signal.Ignore(syscall.SIGPIPE)
	log.SetOutput(io.Discard) // quic-go's advice about large UDP buffers; a client reads little
	ctx, stop := signalContext()
	code := cli.Run(ctx, cli.Process{
		Args:     os.Args[1:],
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: isTerminal(os.Stdout),
	})
	stop()
	os.Exit(code)
}

// signalContext returns a context that ends at the first SIGINT or SIGTERM, or SIGHUP, which a terminal sends that is closed,
// unless whoever started the client wants that ignored (nohup). A second one ends the process as it
// usually does, but not right away: make, timeout and the like pass on what the terminal has sent already, and
// that must not keep the goodbye from reaching the director.
func signalContext() (ctx context.Context, stop context.CancelFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop = signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	return ctx, stop
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
