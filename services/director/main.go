// Command director serves clients and keeps their streams going across workers.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/role"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
)

func main() {
	os.Exit(role.Command{
		Name: "director", Summary: "serves clients and keeps their streams going across workers", Config: config.Director{},
		Serves:   "SIGHUP reloads certificates",
		Serve:    serve,
		MgmtAddr: func() (string, error) { cfg, err := config.LoadDirector(); return cfg.MgmtAddr, err },
		Others:   []*cobra.Command{certsCommand(), keyCommand()},
	}.Run(os.Args[1:]))
}

func serve(out *telemetry.Output) error {
	cfg, err := config.LoadDirector()
	source, log, err := role.Prepare(cfg.Common, identity.Director, out, err)
	if err != nil {
		return err
	}
	ctx, hurry, stop := run.HurryContext()
	defer stop()
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
