// Command worker produces tokens for directors.
package main

import (
	"os"
	"syscall"

	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/role"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

func main() {
	os.Exit(role.Command{
		Name: "worker", Summary: "produces tokens for directors", Config: config.Worker{},
		Serves:   "SIGUSR1 makes the configured simulated failure happen now, SIGHUP reloads certificates and has the models of an inference server tried anew",
		Serve:    serve,
		MgmtAddr: func() (string, error) { cfg, err := config.LoadWorker(); return cfg.MgmtAddr, err },
	}.Run(os.Args[1:]))
}

func serve(out *telemetry.Output) error {
	cfg, err := config.LoadWorker()
	source, log, err := role.Prepare(cfg.Common, identity.Worker, out, err)
	if err != nil {
		return err
	}
	w, err := worker.New(cfg, worker.Deps{TLS: source, Log: log, LogCounts: out.Counts, Memory: memory.Detect()})
	if err != nil {
		return err
	}
	ctx, stop := run.SignalContext()
	defer stop()
	defer role.Signals(source, log, map[os.Signal]func(){syscall.SIGUSR1: w.FailNow, syscall.SIGHUP: w.Probe})()
	return w.Run(ctx)
}
