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

	"github.com/mattn/go-isatty" // what the field uses to tell a terminal; /dev/null is a character device too

	"github.com/connswap/connswap/services/client/internal/cli"
	"github.com/connswap/connswap/shared/config"
)

func main() {
	// A reader of our output that goes away is an error of the write then, not the end of the process: the
	// director is to hear of it.
	signal.Ignore(syscall.SIGPIPE)
	log.SetOutput(io.Discard) // quic-go's advice about large UDP buffers; a client reads little
	ctx := signalContext()
	code := cli.Run(ctx, cli.Process{
		Args:     os.Args[1:],
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Stdin:    os.Stdin,
		Piped:    isPiped(os.Stdin),
		Terminal: isatty.IsTerminal(os.Stdout.Fd()),
		Plain:    config.PlainTerminal(),
	})
	os.Exit(code) // with signals still ours: the second one of a pair must not spoil the code
}

// signalContext returns a context that ends at the first SIGINT or SIGTERM, or SIGHUP, which a terminal sends that is closed,
// unless whoever started the client wants that ignored (nohup). A second one ends the process as it
// usually does, but not right away: make, timeout and the like pass on what the terminal has sent already, and
// that must not keep the goodbye from reaching the director.
func signalContext() context.Context {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	return ctx
}

// isPiped reports whether somebody may have put something into a file: it is a pipe, or a file that is not empty. A service
// manager gives /dev/null, and others a terminal.
func isPiped(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && (info.Mode()&os.ModeNamedPipe != 0 || info.Mode().IsRegular() && info.Size() > 0)
}
