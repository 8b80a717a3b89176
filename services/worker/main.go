// Command worker produces tokens for directors.
//
//	worker          serve, as the environment says
//	worker healthz  exit 0 if the worker on this machine is ready, 1 if not
//	worker --help   list the environment variables
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

const healthTimeout = 3 * time.Second

func main() {
	os.Exit(command(os.Args[1:]))
}

// command returns the exit status: 0 done, 1 failed, 2 not understood.
func command(args []string) int {
	switch {
	case len(args) == 0:
		return report(serve())
	case len(args) == 1 && args[0] == "healthz":
		return report(healthz())
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help"):
		fmt.Println("worker produces tokens for directors. It is configured by environment variables:")
		fmt.Println()
		return report(config.Usage(os.Stdout, config.Worker{}))
	}
	fmt.Fprintln(os.Stderr, "usage: worker [healthz | --help]")
	return 2
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	var problem config.Problem
	if errors.As(err, &problem) {
		return 2
	}
	return 1
}

func serve() error {
	cfg, err := config.LoadWorker()
	var log *zap.Logger
	source, identityErr := identity.FromDir(cfg.TLSDir, identity.Worker, identity.OnReload(func(err error) {
		if err != nil {
			log.Warn("changed certificates cannot be used; the old ones stay", zap.Error(err))
			return
		}
		log.Info("certificates reloaded")
	}))
	if err := errors.Join(err, identityErr); err != nil {
		return err
	}
	log, err = telemetry.NewLogger(cfg.LogLevel, cfg.LogFormat, os.Stderr)
	if err != nil {
		return err
	}
	w, err := worker.New(cfg, worker.Deps{TLS: source, Log: log})
	if err != nil {
		return err
	}
	ctx, stop := run.SignalContext()
	defer stop()
	defer failOnSignal(w)()
	return w.Run(ctx)
}

// failOnSignal makes SIGUSR1 a simulated failure. The function that it returns ends that.
func failOnSignal(w *worker.Worker) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range signals {
			w.FailNow()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

func healthz() error {
	cfg, err := config.LoadWorker()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	return mgmt.Healthz(ctx, cfg.MgmtAddr)
}
