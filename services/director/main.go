// Command director serves clients and keeps their streams going across workers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

const usage = `director serves clients and keeps their streams going across workers.

  director              serve
  director certs DIR    make development certificates in DIR, unless good ones are there
  director healthz      exit 0 if the director configured by the environment is ready

It is configured by environment variables:

`

func main() {
	os.Exit(command(os.Args[1:]))
}

// command returns the exit status: 0 done, 1 failed, 2 not understood.
func command(args []string) int {
	switch {
	case len(args) == 0:
		return report(serve())
	case len(args) == 2 && args[0] == "certs":
		return report(certs(args[1]))
	case len(args) == 1 && args[0] == "healthz":
		return report(healthz())
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help"):
		fmt.Print(usage)
		return report(config.Usage(os.Stdout, config.Director{}))
	}
	fmt.Fprintln(os.Stderr, "usage: director [certs DIR | healthz | --help]")
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
	cfg, err := config.LoadDirector()
	var log *zap.Logger
	source, identityErr := identity.FromDir(cfg.TLSDir, identity.Director, identity.OnReload(func(err error) {
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
	d, err := director.New(cfg, director.Deps{Network: quicnet.OS{}, TLS: source, Log: log})
	if err != nil {
		return err
	}
	ctx, stop := run.SignalContext()
	defer stop()
	return d.Run(ctx)
}

func certs(dir string) error {
	made, err := identity.EnsureDevelopment(dir, time.Now())
	if err == nil {
		fmt.Printf("%s: development certificates %s\n", dir, map[bool]string{true: "made", false: "are good, kept"}[made])
	}
	return err
}

func healthz() error {
	cfg, err := config.LoadDirector()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return mgmt.Healthz(ctx, cfg.MgmtAddr)
}
