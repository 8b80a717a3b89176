package loopback

import (
	"errors"
	"syscall"
	"testing"

	"github.com/connswap/connswap/services/client/connswap"
)

// TestSecondSignal: the first one lets a stream go on; with the second the client is told, and the process ends in order.
func TestSecondSignal(t *testing.T) {
	c := up(t)
	served, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := c.generate(t.Context(), 10_000, func(string) { close(served) })
		ended <- err
	}()
	select {
	case <-served:
	case err := <-ended:
		t.Fatal(err)
	}
	if err := c.director.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.director.line(t, "no new streams; those that run may end")
	c.director.terminate(t)
	if err := <-ended; !errors.Is(err, &connswap.Error{Code: connswap.CodeShutdown}) {
		t.Errorf("the client is told %v", err)
	}
	for _, w := range c.workers {
		w.terminate(t)
	}
}
