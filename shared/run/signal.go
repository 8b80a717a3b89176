package run

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// SignalContext returns a context that ends at the first SIGINT or SIGTERM; its cause names the signal. From
// then on signals have their usual effect again: a second one ends the process at once, with the status that
// says so (130 or 143 in a shell). stop ends the context too, and releases what it holds.
func SignalContext() (ctx context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case received := <-signals:
			signal.Stop(signals) // before anybody can know of the first signal and send a second
			cancel(fmt.Errorf("%v signal received", received))
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// Hurry returns a context that ends at the next SIGINT or SIGTERM after ctx has ended, for whoever takes its time then.
// One more has its usual effect. stop releases what it holds.
func Hurry(ctx context.Context) (hurry context.Context, stop context.CancelFunc) {
	hurry, stop = context.WithCancel(context.Background())
	context.AfterFunc(ctx, func() {
		next, release := signal.NotifyContext(hurry, os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(next, func() {
			release()
			stop()
		})
	})
	return hurry, stop
}

// Catch has a function called for each signal that comes and has one, in the order in which they come, until stop is called.
// It returns when none runs any more.
func Catch(handlers map[os.Signal]func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	for sig := range handlers {
		signal.Notify(signals, sig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			handlers[sig]()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
