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
	ctxs, stop := signalContexts(1)
	return ctxs[0], stop
}

// HurryContext is SignalContext for who takes its time then: hurry ends at the second signal, and only the third has its usual
// effect.
func HurryContext() (ctx, hurry context.Context, stop context.CancelFunc) {
	ctxs, stop := signalContexts(2)
	return ctxs[0], ctxs[1], stop
}

// signalContexts returns contexts of which one ends at each signal.
func signalContexts(n int) (ctxs []context.Context, stop context.CancelFunc) {
	cancels := make([]context.CancelCauseFunc, n)
	for i := range n {
		ctx, cancel := context.WithCancelCause(context.Background())
		ctxs, cancels[i] = append(ctxs, ctx), cancel
	}
	signals := make(chan os.Signal, n)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stopping, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer signal.Stop(signals)
		for i, cancel := range cancels {
			select {
			case received := <-signals:
				if i == n-1 {
					signal.Stop(signals) // before anybody can know of this signal and send another
				}
				cancel(fmt.Errorf("%v signal received", received))
			case <-stopping:
				return
			}
		}
	}()
	return ctxs, func() {
		close(stopping)
		<-done
		for _, cancel := range cancels {
			cancel(context.Canceled)
		}
	}
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
