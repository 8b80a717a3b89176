// Command director serves clients and keeps their streams going across workers.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/role"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

const usage = `director serves clients and keeps their streams going across workers.

  director              serve
  director certs DIR    make development certificates in DIR, unless good ones are there
  director healthz      exit 0 if the director on this machine is ready, 1 if not
`

func main() {
	os.Exit(role.Command{
		Name: "director", Usage: usage, Config: config.Director{},
		Serve:    serve,
		MgmtAddr: func() (string, error) { cfg, err := config.LoadDirector(); return cfg.MgmtAddr, err },
		Others:   map[string]func(string) error{"certs": certs},
	}.Run(os.Args[1:]))
}

func serve(out *telemetry.Output) error {
	cfg, err := config.LoadDirector()
	source, log, err := role.Prepare(cfg.Common, identity.Director, out, err)
	if err != nil {
		return err
	}
	ctx, stop := run.SignalContext()
	defer stop()
	hurry, stopHurry := run.Hurry(ctx)
	defer stopHurry()
	defer role.Signals(source, log, nil)()
	d, err := director.New(cfg, director.Deps{
		Network: quicnet.OS{}, TLS: source, Log: log, LogCounts: out.Counts, Hurry: hurry,
		Memory: memory.Detect(),
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

func certs(dir string) error {
	made, err := identity.EnsureDevelopment(dir, time.Now())
	if err == nil {
		fmt.Printf("%s: development certificates %s\n", dir, map[bool]string{true: "made", false: "are good, kept"}[made])
	}
	return err
}
