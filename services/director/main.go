// Command director serves clients and keeps their streams going across workers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
	err := command(os.Args[1:])
	var bad *config.Problems
	switch {
	case err == nil:
	case errors.As(err, &bad), errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "director:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: director [certs DIR | healthz | --help]")

func command(args []string) error {
	switch {
	case len(args) == 0:
		return serve()
	case len(args) == 2 && args[0] == "certs":
		return certs(args[1])
	case len(args) == 1 && args[0] == "healthz":
		return healthz()
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help"):
		fmt.Print(usage)
		return config.Usage(os.Stdout, config.DefaultDirector())
	}
	return errUsage
}

func serve() error {
	cfg, err := config.LoadDirector()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(cfg.LogLevel, cfg.LogFormat, os.Stderr)
	if err != nil {
		return err
	}
	source, err := identity.FromDir(cfg.TLSDir, identity.Director)
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
